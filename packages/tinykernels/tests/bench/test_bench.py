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


def test_on_a_gpu_like_is_compared_with_like(monkeypatch, capsys) -> None:
    """Kernels with kernels; what cannot be captured in a graph, by how long one call takes after another."""
    seconds = {"ours": 1.0, "captured": 3.0, "waits": 8.0}

    def times(calls, factor: float) -> dict[str, measure.Timing]:
        return {name: measure.Timing(*[factor * seconds[name]] * 3) for name in calls}

    monkeypatch.setattr(bench, "replayed", lambda call: None if call() == "waits" else call)
    monkeypatch.setattr(bench, "timings", lambda calls, _: times(calls, 1e-5 if "waits" not in calls else 1e-3))
    monkeypatch.setattr(bench, "paces", lambda calls: times(calls, 1e-4))
    rivals = {"captured": lambda: "captured", "waits": lambda: "waits", "broken": lambda: 1 / 0}
    example = Case("op", "shape", lambda: "ours", lambda: 0.0, 1e-3, rivals, bytes=5e3)
    row = bench.measure(example, "cuda", measure.Ceilings(bytes=1e9, flops=1e9))
    assert row["timed"] == "graph"
    assert row["ours"]["p20"] == pytest.approx(1e-5)
    assert row["share"] == pytest.approx(0.5)
    found = {name: (rival["timed"], rival["ratio"]) for name, rival in row["rivals"].items()}
    assert found == {"captured": ("graph", pytest.approx(3.0)), "waits": ("pace", pytest.approx(8.0))}
    assert row["pace"] == pytest.approx({"ours": 1e-4, "captured": 3e-4, "waits": 8e-4})
    assert row["failed"] == {"broken": "ZeroDivisionError: division by zero"}
    assert "captured 3.00x, waits 8.00x, broken failed | 0.100 ms, captured 3.00x, waits 8.00x |" in bench.line(row)
