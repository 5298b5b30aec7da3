"""Claim: the benchmark times nothing that is wrong, and writes what it measured.

uv run pytest packages/tinykernels/tests/bench
"""

import json

import pytest
import torch

from tinykernels.bench import __main__ as bench
from tinykernels.bench import measure
from tinykernels.bench.case import Case, relative_error


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "BUDGET_SECONDS", 0.0)
    monkeypatch.setattr(measure, "FEWEST", 2)
    monkeypatch.setattr(bench, "ceilings", lambda _: measure.Ceilings(bytes=1e9, flops=1e9))


def case(error: float, ours: object = None) -> Case:
    def call() -> None:
        if ours is not None:
            raise AssertionError("timed although wrong")

    return Case(
        operation="op",
        label="shape",
        ours=call,
        error=lambda: error,
        bound=1e-3,
        rivals={"other": lambda: None},
    )


def test_a_wrong_result_is_not_timed(monkeypatch, capsys) -> None:
    monkeypatch.setattr(bench, "cases", lambda *_: [case(1e-2, ours="must not run")])
    assert bench.main(["--device", "cpu"]) == 1
    assert "WRONG: the bound is 1.0e-03" in capsys.readouterr().out


def test_results_are_written(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(bench, "cases", lambda *_: [case(1e-4)])
    file = tmp_path / "new" / "kernels.json"
    assert bench.main(["--device", "cpu", "--json", str(file)]) == 0
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["machine"]["torch"] == torch.__version__
    assert written["rows"][0]["ours"]["p20"] <= written["rows"][0]["ours"]["p80"]
    assert written["rows"][0]["rivals"]["other"]["ratio"] > 0


def test_error_of_something_not_finite_is_infinite() -> None:
    assert relative_error(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")


def test_limit_is_the_slower_of_traffic_and_arithmetic() -> None:
    best = measure.Ceilings(bytes=10.0, flops=100.0)
    assert best.limit(20.0, 100.0) == 2.0
    assert best.limit(20.0, 500.0) == 5.0


def test_every_operation_has_cases_on_a_cpu() -> None:
    operations = {case.operation for case in bench.cases("cpu", "rms_norm")}
    assert operations == {"rms_norm"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_gpu_is_refused(capsys) -> None:
    assert bench.main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err.strip() == "bench: --device cuda needs a CUDA device, none is visible"
