"""What `apps/evaluate` finds on the model itself and draws: spectra, costs, curves, the front of several runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from apps.common import recipes, run_record, strict_yaml
from apps.evaluate import costs, measures, pareto, pictures, spectra
from apps.evaluate.pareto import Point
from tests.test_evaluate_tasks import Call, call, checkpoint, saved, tokenizer, tokenizer_of  # noqa: F401  # fixtures
from tinydata import Tokenizer
from tinyeval import Record, Result, Results, Score


def planted(width: int, rank: int) -> tinycore.Decoder:
    """A model whose stream has so many directions: its embeddings have, and its layer adds nothing to them."""
    layer = {"mixer": {"kind": "attention", "heads": 2}, "ffn": {"kind": "swiglu", "hidden": 16}}
    config = {"vocab_size": 64, "dim": width, "max_seq_len": 32, "layers": [{"repeat": 2, **layer}]}
    torch.manual_seed(0)
    model = tinycore.build(tinycore.ModelConfig.from_dict(config)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers" in name:
                parameter.zero_()
        table = next(parameter for parameter in model.parameters() if parameter.shape == (64, width))
        left, right = torch.linalg.qr(torch.randn(64, rank))[0], torch.linalg.qr(torch.randn(width, rank))[0]
        table.copy_(left @ right.T)
    return model


def test_a_planted_rank_is_found_in_every_block() -> None:
    rows = torch.arange(64).repeat(4).view(8, 32)
    found = spectra.measure(planted(24, 6), rows)
    assert [(one.call, one.layer, one.width, one.tokens) for one in found] == [(1, 0, 24, 256), (2, 1, 24, 256)]
    for one in found:
        assert one.rank == 6, "six equal directions: five hold 83 %"
        assert max(one.values[6:]) < 1e-5
        assert len(one.values) == 24
    assert "| 1 " in spectra.shown(found)
    assert "25%" in spectra.shown(found)


def test_rows_are_texts_one_behind_the_other(tokenizer: Tokenizer) -> None:  # noqa: F811
    texts = ["the cat sat on the mat", "the dog ran"]
    rows = spectra.rows_of(texts, tokenizer, 8)
    ids = [tokenizer.end_id, *tokenizer.encode(texts[0]), tokenizer.end_id, *tokenizer.encode(texts[1])]
    assert rows.flatten().tolist() == ids[: rows.numel()]
    assert rows.shape == (len(ids) // 8, 8)
    assert spectra.rows_of(["the cat"], tokenizer, 1000).shape[0] == 1


def test_costs_are_the_closed_form_where_there_is_one(saved: Path) -> None:  # noqa: F811
    model = tinycore.load(saved).eval()
    found = costs.measure(model)
    count = tinycore.count(model.config)
    assert found.weights_bytes == 4 * count.parameters
    assert found.prompt == 24  # half of the context
    assert found.new_tokens == 24
    # a stream also keeps where it stands: 8 bytes a row
    assert 0 <= found.state_bytes - count.state_bytes(24) <= 8 + 8 * 24
    assert found.state_bytes_per_token >= (count.state_bytes(24) - count.state_bytes(12)) / 12
    assert found.peak_bytes > found.weights_bytes + count.state_bytes(47)
    assert found.process_bytes > found.peak_bytes
    assert min(found.tokens_per_second, found.prefill_tokens_per_second) > 0
    assert costs.Cost(**json.loads(json.dumps(found.to_dict()))) == found


def test_what_was_measured_is_kept_with_the_weights(
    saved: Path,  # noqa: F811
    call: Call,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured: list[int] = []
    real = costs.measure

    def counted(model: Any) -> costs.Cost:
        measured.append(1)
        return real(model)

    monkeypatch.setattr(measures.costs, "measure", counted)
    arguments = (saved, "--tasks", "embedded_text", "--limit", 4, "--json")
    _, first, said = call(*arguments)
    _, again, _ = call(*arguments)
    assert len(measured) == 1
    (run,) = again["runs"]
    assert run["cost"] == first["runs"][0]["cost"]
    assert [one["call"] for one in run["spectra"]] == [1]
    assert "decoding, 24 new tokens" in said
    page = (saved / "evaluation" / "report.md").read_text()
    for part in (
        "Bits per byte: ",
        "## Speed and memory",
        "## Activation spectra",
        "effective rank, 95 %",
        "![spectra.png]",
    ):
        assert part in page
    (saved / "evaluation" / "model.json").write_text('{"format": 1}')
    call(*arguments)
    assert len(measured) == 2


def test_fronts_and_their_picture(tmp_path: Path) -> None:
    found = [
        Point("a", 1.0, 4e6, 1e15, 100.0),
        Point("b", 1.2, 1e6, 2e15, 300.0),
        Point("c", 1.3, 2e6, None, 50.0),
    ]
    assert {row["run"]: row["front"] for row in pareto.rows(found)} == {
        "a": ["parameters", "flops", "seconds"],
        "b": ["parameters"],
        "c": ["seconds"],
    }
    assert "1M *" in pareto.shown(found)
    assert pareto.draw(tmp_path / "pareto.png", found, "task embedded_text")
    assert (tmp_path / "pareto.png").stat().st_size > 1000
    assert not pareto.draw(tmp_path / "none.png", found[:1], "")


def run_of(path: Path, val: float, steps: int) -> run_record.RunRecord:
    """A run's directory as training leaves it, less its checkpoints."""
    path.mkdir()
    recipe = strict_yaml.read(Path(recipes.__file__).parents[1] / "recipes" / "demo.yaml")
    (path / "recipe.yaml").write_text(json.dumps(recipe))
    lines = [{"step": step, "tokens": step * 100, "loss": 5 - step / steps} for step in range(1, steps + 1)]
    lines[-1]["val_bpb"] = val
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "timing.jsonl").write_text(json.dumps({"step": steps, "seconds": 2.0 * steps}) + "\n")
    return run_record.read(path)


def test_runs_are_placed_by_the_text_that_all_were_asked(tmp_path: Path) -> None:
    records = {name: run_of(tmp_path / name, val, steps) for name, val, steps in (("a", 2.0, 4), ("b", 1.0, 8))}

    def results(bits: float) -> Results:
        record = Record("0", {"bits_per_byte": bits})
        score = Score(bits, None)
        return Results(
            {
                "embedded_text": Result(
                    "embedded_text",
                    1,
                    "",
                    "m",
                    "bits_per_byte",
                    False,
                    1,
                    0,
                    None,
                    {"bits_per_byte": score},
                    records=(record,),
                )
            }
        )

    runs = {"a": (results(1.5), records["a"]), "b": (results(1.7), records["b"])}
    found, source = pareto.points(runs)
    assert source == "task embedded_text"
    assert [(point.run, point.bits_per_byte, point.seconds) for point in found] == [("a", 1.5, 8.0), ("b", 1.7, 16.0)]
    assert found[1].flops == pytest.approx(2 * (found[0].flops or 0.0))
    assert found[0].parameters == records["a"].parameters
    own, source = pareto.points({name: (Results({}), record) for name, record in records.items()})
    assert [point.bits_per_byte for point in own] == [2.0, 1.0]
    assert "own validation" in source
    assert pareto.caveats({name: (Results({}), record) for name, record in records.items()}, source)
    assert pareto.points({"a": (results(1.5), records["a"])}) == ([], "")
    assert pictures.curves(tmp_path / "curves.png", dict(records))
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert not pictures.curves(tmp_path / "none.png", {"a": None})


def test_two_runs_are_drawn_beside_each_other(saved: Path, tmp_path: Path, call: Call) -> None:  # noqa: F811
    other = checkpoint(tmp_path / "other", tokenizer_of(290), seed=1)
    _, found, said = call(saved, other, "--compare", "--tasks", "embedded_text", "--limit", 4, "--json")
    page = Path(found["comparison"]["page"])
    assert (page.parent / "spectra.png").stat().st_size > 1000
    assert "## Speed and memory" in page.read_text()
    assert "prefill, a prompt of 24 tokens" in said
    assert found["comparison"]["pareto"]["runs"] == [], "checkpoints without a run have no cost of training"
