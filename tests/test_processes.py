"""Claim: N processes compute what one computes with N times the accumulation; they hear each other, refuse together, and
the launcher returns one exit status for all and leaves nobody behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file

from apps.common import command_line, launcher, processes
from apps.common.errors import BadRequest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
FINAL = Path("checkpoints") / "step_00000012"


OPTIMIZERS = {
    "adamw": [],
    "muon": ["--optim.kind", "muon"],
    "shared muon": ["--optim.kind", "muon", "--optim.shared", "true"],
    "m3": ["--optim.kind", "m3", "--optim.slow_period", "5"],
    "deep_momentum": ["--optim.kind", "deep_momentum"],
    "delta_gd": ["--optim.kind", "delta_gd"],
    "adam_atan2": ["--optim.kind", "adam_atan2"],
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_two_processes_are_one_with_twice_the_accumulation(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, kind: str
) -> None:
    one, two = tmp_path / "runs" / "one", tmp_path / "runs" / "two"
    common = ["--recipe", str(tiny_recipe), "--train.micro_batch", "2", *OPTIMIZERS[kind], "--json"]
    alone, together = sessions(
        [{"argv": [*common, "--out", str(one)]}, {"argv": [*common, "--out", str(two)], "world": 2}]
    )
    assert alone.codes == [0], alone.err
    assert together.codes == [0, 0], together.err
    assert (alone.json["processes"], together.json["processes"]) == (1, 2)
    # each of the two gave its own random state to the checkpoint: there were two
    states = [(two / FINAL / f"rng-0000{rank}.safetensors").read_bytes() for rank in range(2)]
    assert states[0] != states[1]
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    assert len(rows[0]) == len(rows[1]) == 12 + 4 + 2
    for first, second in zip(*rows, strict=True):
        assert first.keys() == second.keys()
        assert (first["step"], first["tokens"]) == (second["step"], second["tokens"])
        for key in first:
            # the same sums in another order: equal to rounding at first, which the optimizer then amplifies
            close = 1e-6 if first["step"] == 1 else 1e-3 if key in ("grad_norm", "accuracy", "val_accuracy") else 1e-5
            assert first[key] == pytest.approx(second[key], abs=close), (first["step"], key)
    weights = [load_file(run / FINAL / "model.safetensors") for run in (one, two)]
    for name, tensor in weights[0].items():
        assert (tensor - weights[1][name]).norm() < 1e-4 * tensor.norm(), name
    saved = [load_file(run / FINAL / "optimizer.safetensors") for run in (one, two)]
    assert {name: value.shape for name, value in saved[0].items()} == {
        name: value.shape for name, value in saved[1].items()
    }


def test_what_processes_tell_each_other(sessions: Sessions) -> None:
    (result,) = sessions([{"call": "world", "world": 2}])
    # the refusal of the main process: one line, and the same exit status in both
    assert result.codes == [2, 2], result.err
    assert result.err.strip() == "error: no such thing"
    heard = [json.loads(line) for line in result.out.splitlines()]
    assert heard[0] == heard[1]
    assert heard[0] == {
        "ranks": [0, 11],  # gathered: "0" from one and "11" from the other
        "total": [3.0, 2.0**53],
        "from_main": {"rank": 0},
        # present in both, in one, in none
        "gradients": [[3.0, 3.0, 3.0], [1.0, 1.0, 1.0], None],
        "same": [0.0, 0.0],
    }


def test_errors_of_two_processes_are_one_line(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "a"
    (run).mkdir(parents=True)
    (run / "other").write_text("")
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), "--out", str(run)], "world": 2}])
    assert result.codes == [2, 2]
    assert re.fullmatch(r"error: .*exists and is not a run.*\n", result.err)


def test_devices_that_are_not_there() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(BadRequest, match="--device cuda: 2 needed, this machine has no CUDA device"):
            processes.device_type("cuda", 2)
        assert processes.device_type("auto", 2) == "cpu"
    if not torch.backends.mps.is_available():
        with pytest.raises(BadRequest, match="no Metal device"):
            processes.device_type("mps", 1)
    assert processes.device_type("cpu", 64) == "cpu"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_two_processes_on_one_gpu(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert processes.device_type(device, 1) == "cuda"
    with pytest.raises(BadRequest, match="--device cuda: 2 needed, this machine has 1 CUDA device; use --device cpu"):
        processes.device_type(device, 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes.device_type(device, 2) == "cuda"
    # of several machines, only the processes of this one count
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(BadRequest, match="4 needed, this machine has 2 CUDA devices"):
        processes.start(device, "fp32", 1, ())


@pytest.mark.parametrize("name", processes.LAUNCHERS)
def test_a_launcher_that_torch_does_not_hear_of(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "2")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(
        BadRequest, match=rf"{name} says 2 processes, and each would train alone; launch with `uv run tor"
    ):
        processes.start("cpu", "fp32", 1, ())


def test_a_device_that_is_not_there_is_one_line_and_two(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    run = tmp_path / "runs" / "a"
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), "--out", str(run), "--device", "cuda"]}])
    assert result.codes == [2]
    assert result.err == "error: --device cuda: 1 needed, this machine has no CUDA device; use --device cpu\n"
    assert not run.exists()


LAUNCH = Path(__file__).parents[1] / "apps" / "recipes" / "launch"
PAGE = (Path(__file__).parents[1] / "docs" / "distributed.md").read_text(encoding="utf-8")


def test_every_launch_file_is_one_of_accelerates_and_on_the_page() -> None:
    found = {path.name: load_config_from_file(str(path)) for path in sorted(LAUNCH.glob("*.yaml"))}
    assert {name: (config.distributed_type.value, config.num_processes) for name, config in found.items()} == {
        "deepspeed-zero3.yaml": ("DEEPSPEED", 2),
        "one-node-of-eight.yaml": ("MULTI_GPU", 8),
        "several-nodes.yaml": ("MULTI_GPU", 16),
        "two-gpus.yaml": ("MULTI_GPU", 2),
    }
    assert found["several-nodes.yaml"].num_machines == 2
    parser = launch_command_parser()
    shown = re.findall(r"^uv run (?:--no-sync )?accelerate launch (.*)$", PAGE, re.MULTILINE)
    assert sorted(Path(parser.parse_args(line.split()).config_file).name for line in shown) == sorted(found)
    for line in shown:
        given = parser.parse_args(line.split())
        assert (LAUNCH.parents[2] / given.config_file).is_file()
        if given.module:
            assert given.training_script == "apps.pretrain"
            command_line.parse("pretrain", given.training_script_args)  # options and recipes that there are


def test_the_page_says_what_its_files_say() -> None:
    for path in LAUNCH.glob("*.yaml"):
        line = path.read_text(encoding="utf-8")
        assert ("UNTESTED" in line) == (path.name == "deepspeed-zero3.yaml")
        assert path.name == "deepspeed-zero3.yaml" or f"--config_file apps/recipes/launch/{path.name}" in line


def test_processes_that_do_not_find_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(BadRequest, match=r"--processes 3: the launcher started 2"):
        processes.start("cpu", "fp32", 3, ())

    class Alone:
        distributed_type = processes.DistributedType.NO
        num_processes = 1

    monkeypatch.setattr(processes, "Accelerator", lambda **_: Alone())
    with pytest.raises(BadRequest, match="started 2 processes and 1 found each other"):
        processes.start("cpu", "fp32", 1, ())
    Alone.distributed_type = processes.DistributedType.FSDP
    with pytest.raises(BadRequest, match=r"accelerate is configured for FSDP.*--train.sharding full"):
        processes.start("cpu", "fp32", 1, ())
    Alone.distributed_type = processes.DistributedType.DEEPSPEED
    with pytest.raises(BadRequest, match="accelerate is configured for DEEPSPEED"):
        processes.start("cpu", "fp32", 1, ())


def test_buckets_are_consecutive_bounded_and_of_one_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "BUCKET_BYTES", 40)
    sizes, kinds = [4, 6, 1, 20, 1, 1], [torch.float32] * 5 + [torch.float64]
    tensors = [torch.zeros(size, dtype=kind) for size, kind in zip(sizes, kinds, strict=True)]
    found = [[tensor.numel() for tensor in bucket] for bucket in processes._buckets(tensors)]
    assert found == [[4, 6], [1], [20], [1], [1]]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Launches two processes of a program without torch, given as source, with short patience."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(launcher, "NOTICE", 0.3)
    monkeypatch.setattr(launcher, "GRACE", 0.3)

    def run(source: str) -> int:
        (tmp_path / "ranked.py").write_text(f"import os, signal, sys, time\nrank = int(os.environ['RANK'])\n{source}\n")
        return launcher.launch("ranked", ["word"], 2)

    return run


@pytest.mark.parametrize(
    ("codes", "status"),
    [((0, 0), 0), ((3, 3), 3), ((2, 2), 2), ((0, 2), 2), ((2, 3), 2), ((0, 1), 1), ((3, 70), 1), ((0, -9), 1)],
)
def test_one_exit_status_for_all(codes: tuple[int, int], status: int) -> None:
    assert launcher.together(codes) == status


def test_each_process_knows_its_place(program: Callable[[str], int], tmp_path: Path) -> None:
    keys = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS"]
    source = f"open('{tmp_path}/' + str(rank), 'w').write(' '.join(os.environ[k] for k in {keys}) + sys.argv[1])"
    assert program(source) == 0
    said = [(tmp_path / str(rank)).read_text() for rank in range(2)]
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // 2))
    assert said == [f"0 0 2 2 {threads}word", f"1 1 2 2 {threads}word"]


def test_the_first_failure_is_explained(program: Callable[[str], int], capfd: pytest.CaptureFixture[str]) -> None:
    assert program("print('unheard')\nif rank == 1: sys.exit('the reason')\ntime.sleep(0.5)\nsys.exit(1)") == 1
    assert capfd.readouterr() == ("unheard\n", "unheard\nthe reason\n")
    assert program("if rank == 1: os.kill(os.getpid(), 9)\nsys.exit('gone') if time.sleep(0.2) is None else 0") == 1
    assert "process 1 was killed (SIGKILL)" in capfd.readouterr().err


def test_who_does_not_leave_is_made_to(program: Callable[[str], int]) -> None:
    start = time.monotonic()
    source = "if rank == 1: sys.exit(2)\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(60)"
    assert program(source) == 1
    assert time.monotonic() - start < 30


def test_a_signal_is_passed_on_once(tmp_path: Path) -> None:
    """The launcher in a process of its own, so that it can be sent a signal like from a terminal."""
    (tmp_path / "ranked.py").write_text(
        "import os, signal, sys, time\ncount = []\nsignal.signal(signal.SIGINT, lambda *_: count.append(1))\n"
        f"open('{tmp_path}/ready' + os.environ['RANK'], 'w').close()\n"
        "deadline = time.monotonic() + 60\n"
        "while not count and time.monotonic() < deadline: time.sleep(0.02)\n"
        "time.sleep(0.3)\nsys.exit(3 if len(count) == 1 else 1)\n"
    )
    program = "import sys; from apps.common.launcher import launch; sys.exit(launch('ranked', [], 2))"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
    )
    while not all((tmp_path / f"ready{rank}").exists() for rank in range(2)):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "launch",
    [
        ["-m", "apps.pretrain", "--processes", "2"],
        ["-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "apps.pretrain"],
    ],
    ids=["processes", "torchrun"],
)
def test_the_commands_of_the_readme(launch: list[str], tiny_recipe: Path, tmp_path: Path) -> None:
    arguments = ["--recipe", str(tiny_recipe), "--out", str(tmp_path / "runs" / "two"), "--json"]
    done = subprocess.run([sys.executable, *launch, *arguments], capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["processes"] == 2


@pytest.mark.slow
def test_two_launchers_as_on_two_machines(tiny_recipe: Path, tmp_path: Path) -> None:
    """The command of docs/distributed.md for several machines, both of them this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "runs" / "two"
    options = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    train = [
        "-m",
        "apps.pretrain",
        "--recipe",
        str(tiny_recipe),
        "--train.sharding",
        "full",
        "--out",
        str(run),
        "--json",
    ]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *options, "--node_rank", str(rank), *train],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=280)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert json.loads(said[0].splitlines()[-1])["processes"] == 2
