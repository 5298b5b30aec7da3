"""docs/size.md, printed: what `--size` derives at every size, and the rule of each value.

uv run python -m apps.common.size_page > docs/size.md
"""

from __future__ import annotations

import sys

from apps.common import dial
from apps.common.console import short
from apps.common.dial_shape import shape

SIZES = ("0.2M", "0.5M", "1M", "2M", "5M", "10M", "20M", "30M", "60M", "110M", "200M", "350M", "700M", "1B")
HEAD = """# Size: one dial

Printed by `uv run python -m apps.common.size_page`; a test holds this page to what it prints.

`uv run apps/pretrain --size 10M` derives a whole recipe from a number of parameters between 0.2M and 1B. Deriving allocates
nothing, so `--size 1B --dry-run` answers at once; it prints every value with its rule, and the counts and memory that follow.
Any value can be given by its dotted name (`--size 10M --model.dim 320`): it takes the place of the derived one, and nothing
else changes. How long to train is said in one of three ways, with `--size` as with `--recipe`:

| option | the run |
|---|---|
| `--train.steps 5000` | has so many steps |
| `--tokens 200M` | sees so many tokens; with `--size`, batch, learning rate and weight decay follow from them |
| `--minutes 30` | ends so long after the start on this machine; with `--size`, what `--tokens` changes follows once |

For `--minutes` a throw-away model is trained for a few steps first, which leaves no trace in the run; the steps that fit,
validation, checkpoints and report included, are written into `recipe.yaml`, and a resumed run is not measured again.

With `--tokens` and `--minutes` a warmup that was made for a longer run and would take more than a tenth of this one is
shortened with the steps, and the run says so.

## What each size derives

For 20 tokens a parameter. Layers x width; heads / key-value heads; batch in rows of `length` tokens.

"""
RULES = """
## Rules

The measured point that batch, learning rate, weight decay and schedule are scaled from is the demo recipe (0.92M parameters,
2.05M tokens). The learning rate was checked at 0.5M and 2M on short runs, where a third and three times of it were worse
([EXPERIMENTS.md](EXPERIMENTS.md)). **Above 2M parameters, and for runs of 20 tokens a parameter, the optimizer's values are
extrapolated** from there by published exponents and were not measured here. Values are those of 10M.

| key | at 10M | rule |
|---|---|---|
"""


def main() -> None:
    """Print the page."""
    sys.stdout.write(page())


def page() -> str:
    """The page as Markdown."""
    return HEAD + "\n".join(_table()) + "\n" + RULES + "\n".join(_rules("10M")) + "\n"


def _table() -> list[str]:
    head = ["size", "parameters", "vocabulary", "shape", "heads", "hidden", "length", "batch", "steps", "tokens"]
    head += ["learning rate", "weight decay", "warmup", "precision"]
    return [_row(head), "|" + "---:|" * len(head), *(_row(_size(text)) for text in SIZES)]


def _size(text: str) -> list[str]:
    """The cells of one size."""
    asked = dial.read(text)
    mapping, _ = asked.turn()

    def get(key: str) -> int:
        return dial.at(mapping, key)

    length, batch, steps = get("data.sequence_length"), get("train.batch_size"), get("train.steps")
    return [
        text,
        f"{shape(asked.target).parameters():,}",
        f"{get('data.tokenizer.vocab_size'):,}",
        f"{get('model.layers.0.repeat')} x {get('model.dim')}",
        f"{get('model.layers.0.mixer.heads')} / {get('model.layers.0.mixer.kv_heads')}",
        f"{get('model.layers.0.ffn.hidden'):,}",
        f"{length:,}",
        f"{batch}",
        f"{steps:,}",
        short(batch * length * steps),
        f"{get('optim.learning_rate'):g}",
        f"{get('optim.weight_decay'):g}",
        f"{get('optim.schedule.warmup'):,}",
        str(get("train.precision")),
    ]


def _rules(text: str) -> list[str]:
    return [_row([f"`{entry.key}`", str(entry.value), entry.rule]) for entry in dial.read(text).turn()[1]]


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
