"""A report is made from a run's files alone, whatever state they are in, and never compares what does not compare."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.common import command_line, comparison, plots, recipes, report, run_record
from apps.common.errors import BadRequest, RunError
from apps.report.__main__ import run as report_app
from tinycore import ConfigError

MANIFEST = {
    "text_sha256": "a" * 64,
    "split_shares": {"validation": 0.01, "test": 0.01},
    "parts": {"stories": {"documents": 9, "bytes": 4096, "sha256": "b1" * 32, "licence": "MIT"}},
    "splits": {"train": {"documents": 8, "tokens": 700, "bytes": 3000, "sha256": "c2" * 32}},
    "tokenizer": {"kind": "train", "vocab_size": 512, "sha256": "d3" * 32},
    "skipped": {"stories": {"empty": 3}},
}


def make_run(path: Path, data: dict[str, Any] | None = None, steps: int = 200, status: str = "done") -> Path:
    """A run directory as training leaves it, with a loss that falls from 6 to 2."""
    path.mkdir(parents=True)
    recipe = recipes.load("brandon-226k", [command_line.overrides.read("data.cache", str(path / "no-cache"))])
    (path / "recipe.yaml").write_text(recipes.to_yaml(recipe))
    (path / "status.json").write_text(json.dumps({"status": status, "step": steps, "lineage": []}))
    rows: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        loss = 2 + 4 * 0.97**step
        common = {"step": step, "tokens": step * 1000}
        rows.append(common | {"loss": loss, "learning_rate": 1e-3, "grad_norm": 0.5, "accuracy": 1 / loss})
        if step % 50 == 0:
            rows.append(common | {"val_loss": loss + 0.1, "val_bpb": loss / 2, "val_accuracy": 0.3, "gap": 0.1})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    timing = {"step": steps, "tokens": 1, "seconds": 75.0, "tokens_per_second": 1234.0, "memory_bytes": 2**30}
    (path / "timing.jsonl").write_text(json.dumps(timing | {"mfu": 0.31, "mfu_peak": "measured"}) + "\n")
    (path / "samples.md").write_text("## Step 100\n\n    old\n\n## Step 200\n\n    | <b>new</b> |\n")
    if data is not None:
        (path / "data.json").write_text(json.dumps(data))
    return path


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def invoke(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["report", *argv])
    return report_app()


def test_a_report_tells_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine", MANIFEST)
    text = report.write(run).read_text()
    assert text.startswith("# mine\n")
    for told in (
        "227,280",
        "200,000",
        "+0.1000",
        "1,234",
        "31.0%",
        "1 min 15 s",
        "1.0 GiB",
        "3 empty",
        "MIT",
    ):
        assert told in text, told
    for part in (MANIFEST["parts"]["stories"], MANIFEST["splits"]["train"], MANIFEST["tokenizer"]):
        assert part["sha256"][:16] in text
    assert "    | <b>new</b> |" in text
    assert "old" not in text


def test_every_picture_of_the_report_is_there_and_no_other(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine", MANIFEST)
    text = report.write(run).read_text()
    drawn = {path.name for path in run.glob("*.png")}
    assert drawn == {"loss.png", "curve.png", "bits_per_byte.png", "accuracy.png", "optimization.png"}
    assert {name for name in drawn if f"({name})" in text} == drawn - {"curve.png"}
    for name in drawn:
        width, height = png_size(run / name)
        assert width > height > 300


def test_losses_and_experts_are_drawn_where_there_are_any(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine", MANIFEST)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    parts = {"loss/lm": 2.0, "loss/balance": 0.01, "experts/usage/logic": 0.4, "experts/usage/language": 0.6}
    (run / "metrics.jsonl").write_text("".join(json.dumps(row | parts) + "\n" for row in rows))
    text = report.write(run).read_text()
    for name in ("losses.png", "experts.png"):
        assert f"({name})" in text
        assert png_size(run / name)[0] > 300


def test_the_same_run_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "a" / "mine", MANIFEST), make_run(tmp_path / "b" / "mine", MANIFEST)
    report.write(first)
    report.write(second)
    for name in ("loss.png", "curve.png", "optimization.png"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_damaged_last_line_is_counted_and_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine", MANIFEST)
    whole = run_record.read(run).metrics
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 210, "loss": 1.\xff')
    record = run_record.read(run)
    assert (record.damaged, record.metrics) == (1, whole)
    assert "1 log line could not be read" in report.write(run).read_text()


def test_an_unfinished_run_says_so_and_how_to_go_on(tmp_path: Path) -> None:
    told = {}
    for status in ("stopped", "running", "failed"):
        told[status] = report.render(run_record.read(make_run(tmp_path / status, status=status)), [])
        assert "200 of 10,000" in told[status]
    assert f"uv run apps/pretrain --resume {tmp_path / 'stopped'}" in told["stopped"]


def test_a_run_that_has_only_begun_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine", status="running")
    for name in ("metrics.jsonl", "timing.jsonl", "samples.md"):
        (run / name).unlink()
    text = report.write(run).read_text()
    assert "227,280" in text
    assert not list(run.glob("*.png"))


def test_values_that_json_has_no_number_for_are_not_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    lines = [
        {"step": 1, "tokens": 5, "loss": None},
        {"step": 2, "tokens": 9, "loss": 3.0},
        {"step": 3, "loss": 1.0},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run_record.read(run).series("loss") == ([9], [3.0])
    report.write(run)


def test_the_data_is_found_in_the_cache_by_the_checkpoint_and_kept_with_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mine")
    cached = tmp_path / "mine" / "no-cache" / "k"
    cached.mkdir(parents=True)
    (cached / "manifest.json").write_text(json.dumps(MANIFEST))
    assert run_record.read(run).data is None
    checkpoint = run / "checkpoints" / "step_00000200"
    checkpoint.mkdir(parents=True)
    progress = {"dataset": {"train": "c2" * 32}, "environment": {"torch": "9.9"}}
    (checkpoint / "trainer.json").write_text(json.dumps(progress))
    assert "9.9" in report.write(run).read_text()
    (cached / "manifest.json").unlink()
    assert run_record.read(run).data == MANIFEST


def other(**changes: Any) -> dict[str, Any]:
    return {**MANIFEST, **changes}


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (MANIFEST, None),
        (other(text_sha256="f" * 64), "different text"),
        (other(split_shares={"validation": 0.5, "test": 0.0}), "different text"),
        (other(tokenizer={"vocab_size": 9, "sha256": "e" * 64}), "bits per byte do"),
        (None, "not recorded"),
    ],
)
def test_a_comparison_says_what_does_not_compare(
    tmp_path: Path, second: dict[str, Any] | None, words: str | None
) -> None:
    records = [
        run_record.read(make_run(tmp_path / "a", MANIFEST)),
        run_record.read(make_run(tmp_path / "b", second)),
    ]
    found = comparison.caveats(records)
    assert (found == []) if words is None else (len(found) == 1 and words in found[0])


def test_a_comparison_is_a_table_curves_and_its_caveats(tmp_path: Path) -> None:
    different = other(tokenizer={"vocab_size": 9, "sha256": "e" * 64})
    records = [
        run_record.read(make_run(tmp_path / "a", MANIFEST)),
        run_record.read(make_run(tmp_path / "b", different)),
    ]
    text = comparison.write(records, tmp_path / "both").read_text()
    assert all(note in text for note in comparison.caveats(records))
    assert "| a | 227,280 | 200 | 200,000 |" in text
    assert "| d3d3d3d3 |" in text
    assert "| eeeeeeee |" in text
    assert {path.name for path in (tmp_path / "both").glob("*.png")} == {
        "comparison_bits_per_byte.png",
        "comparison_validation_loss.png",
        "comparison_training_loss.png",
    }


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    records = [run_record.read(make_run(tmp_path / folder / "mine")) for folder in ("a", "b")]
    assert comparison.names(records) == ["a/mine", "b/mine"]


def test_the_app_reports_one_run_and_compares_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = make_run(tmp_path / "a", MANIFEST), make_run(tmp_path / "b", MANIFEST)
    assert invoke(monkeypatch, str(first)) == 0
    assert f"results: {first / 'report.md'}" in capsys.readouterr().out
    assert invoke(monkeypatch, str(first), str(second), "--out", str(tmp_path / "both"), "--json") == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["report"] == str(tmp_path / "both" / "comparison.md")
    assert [entry["val_bpb"] for entry in result["runs"]] == [run_record.read(first).last("val_bpb")] * 2


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "one or more runs"),
        (["nowhere"], "nowhere"),
        (["."], "recipe.yaml"),
        (["a", "a"], "twice"),
        (["a", "--out", "x"], "--out"),
        (["a", "--smooth", "x"], "--smooth"),
        (["broken"], "modle"),
        (["torn"], "status.json"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    make_run(tmp_path / "a")
    (make_run(tmp_path / "broken") / "recipe.yaml").write_text("modle: {}\n")
    (make_run(tmp_path / "torn") / "status.json").write_text('{"status": ')
    monkeypatch.chdir(tmp_path)
    with pytest.raises((BadRequest, RunError, ConfigError)) as caught:
        invoke(monkeypatch, *argv)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_smoothing_is_the_gaussian_mean_of_what_is_there() -> None:
    raw = np.random.default_rng(0).normal(size=200)
    width = len(raw) / plots.SMOOTHING_LINES
    expected = []
    for i in range(len(raw)):
        near = [j for j in range(len(raw)) if abs(i - j) <= 4 * width]
        weights = [np.exp(-0.5 * ((i - j) / width) ** 2) for j in near]
        expected.append(sum(w * raw[j] for w, j in zip(weights, near, strict=True)) / sum(weights))
    np.testing.assert_allclose(plots.smoothed(raw), expected, rtol=1e-12)
    np.testing.assert_allclose(plots.smoothed([5.0]), [5.0])
