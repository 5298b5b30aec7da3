"""`uv run apps/bench NAME ...`: measurements of this project on this machine, beside what one would use instead."""

from __future__ import annotations

import importlib
import sys

from apps.common import command_line
from apps.common.errors import BadRequest

BENCHMARKS = {
    "train": "training speed and memory beside transformers' Llama of the same shape",
    "generate": "decoding speed beside transformers' generate",
    "memory": "predicted memory of training beside measured",
    "blocks": "speed, memory and counts of every building block beside the plain one",
    "depth": "speed of every way of calling layers beside plain depth",
    "routing": "speed of routing, memories and heads beside the plain stack",
    "decode": "what a trained model saves by guessing tokens, leaving early, skipping the vocabulary",
    "experts": "what each source of text loses without a cognitive expert",
    "hops": "loops beside layers on a task of k steps",
    "scratchpads": "states written down beside answers at once, on longer problems than those learned",
    "sandbox": "runs a second of model-written code in each engine, and how long one takes to start",
    "data": "tokenizing, loading and verified problems a second, beside their goals",
    "optim": "a step of Muon beside torch.optim.Muon and AdamW, alone and shared among processes",
    "width": "the best learning rate at several widths, with width transfer and without",
    "kernels": "tinykernels' operations beside their rivals, correctness first",
}


def run() -> int:
    """Run the benchmark that the command line names; the exit status."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        width = max(map(len, BENCHMARKS))
        sys.stdout.write("uv run apps/bench NAME [OPTIONS]\n\n")
        sys.stdout.writelines(f"  {key:<{width}}  {text}\n" for key, text in BENCHMARKS.items())
        sys.stdout.write("\noptions of one: uv run apps/bench NAME --help\n")
        return 0
    if name not in BENCHMARKS:
        raise BadRequest(f"unknown benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return importlib.import_module(f"apps.bench.{name}").main(sys.argv[2:])


if __name__ == "__main__":
    command_line.main(run)
