"""The table says what its cells hold: means, paired intervals by printed quantiles, and nothing that does not compare."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from apps.ablate import cell, comparison, forest, page
from apps.ablate.__main__ import run as ablate_app
from apps.ablate.baseline import Baseline
from apps.ablate.cell import Cell
from apps.common import files, recipes, variants
from apps.common.errors import BadRequest, RunError
from tinycore.config import dump

# val_bpb by seed; differences to plain: better -0.10, -0.11, -0.12; luck +0.02, -0.03, -0.01; worse +0.2 three times
SCORES = {
    "plain": (1.50, 1.60, 1.40),
    "luck": (1.52, 1.57, 1.39),
    "better": (1.40, 1.49, 1.28),
    "worse": (1.70, 1.80, 1.60),
    "alone": (1.30,),
}
OVERRIDES = {
    "plain": {},
    "luck": {"model.layers.0.mixer.qk_norm": True},
    "better": {"model.depth": {"kind": "shared", "times": 2}},
    "worse": {"optim.learning_rate": 1e-4},
    "alone": {"model.embed.tied": False},
}
FLOPS = {"plain": 100.0, "luck": 100.0, "better": 200.0, "worse": 100.0, "alone": 150.0}


def fabricate(folder: Path, name: str, seed: int, score: float | None, **change: Any) -> Path:
    """A cell's file, as training `name` would leave it."""
    base = recipes.to_dict(recipes.load("demo"))
    changes = {**OVERRIDES[name], "train.seed": seed, **change.pop("smuggled", {})}
    recipe = recipes.from_dict(recipes.merge(base, variants.as_overrides(changes, name)))
    fields = {
        "variant": name,
        "seed": seed,
        "status": "diverged" if score is None else "done",
        "reason": "loss or gradient not finite at step 9" if score is None else None,
        "overrides": OVERRIDES[name],
        "steps": 1000,
        "tokens": None if score is None else 2_000_000 + seed,
        "parameters": 918_656,
        "flops_per_token": FLOPS[name],
        "val_bpb": score,
        "seconds": 60.0,
        "tokens_per_second": None
        if score is None
        else {"plain": 10_000.0, "better": 5_000.0 + seed}.get(name, 10_000.0),
        "jobs": 2,
        "data": "d" * 64,
        "environment": {"threads": 1, "torch": "9.9"},
        "recipe": cell.recorded(recipe),
    }
    found = Cell(**{**fields, **change})
    cell.write(folder, found)
    return cell.path_of(folder, name, seed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An experiment of five variants."""
    bound = Baseline(val_bpb=1.45, targets=32_465, rows=128, sequence_length=256, data="d" * 64)
    files.write_json(tmp_path / "bigram.json", dump(bound))
    for name, scores in SCORES.items():
        for seed, score in enumerate(scores):
            fabricate(tmp_path, name, seed, score)
    return tmp_path


def noise() -> float:
    """Of the four variants with three seeds: what an effect of each variant and of each seed does not explain."""
    table = [SCORES[name] for name in ("plain", "luck", "better", "worse")]
    whole = sum(map(sum, table)) / 12
    seeds = [sum(row[seed] for row in table) / 4 for seed in range(3)]
    left = [score - sum(row) / 3 - effect + whole for row in table for score, effect in zip(row, seeds, strict=True)]
    return (sum(each**2 for each in left) / 6) ** 0.5


def test_verdicts_and_intervals(folder: Path) -> None:
    rows = {row.variant: row for row in comparison.of(folder).rows}
    assert {name: row.verdict for name, row in rows.items()} == {
        "plain": "",
        "luck": "not distinguishable",
        "better": "better",
        "worse": "worse",
        "alone": "one seed",
    }
    found = rows["better"].difference
    assert found is not None
    reach = (
        2.446912 * noise() * (2 / 3) ** 0.5
    )  # Student's 97.5 % quantile of 6 degrees of freedom, from a printed table
    assert (found.mean, found.low, found.high) == pytest.approx((-0.11, -0.11 - reach, -0.11 + reach), abs=1e-6)
    assert rows["alone"].difference is not None
    assert rows["alone"].difference.n == 1
    assert (rows["better"].flops, rows["better"].speed) == (2.0, pytest.approx(0.5001))
    assert {name: row.below(1.45) for name, row in rows.items()} == {
        "plain": 1,
        "luck": 1,
        "better": 2,
        "worse": 0,
        "alone": 1,
    }


def test_the_markdown(folder: Path) -> None:
    lines = page.markdown(comparison.of(folder, ["worse", "better"])).splitlines()
    table = {
        row[0]: row[1:] for row in ([part.strip() for part in line.split("|")[1:-1]] for line in lines if "|" in line)
    }
    assert list(table)[2:] == ["plain", "worse", "better", "alone", "luck"]
    better = dict(zip(table["variant"], table["better"], strict=True))
    assert better == {
        "parameters": "918,656",
        "FLOPs": "2.00x",
        "tok/s": "0.50x",
        "val_bpb": "1.3900",
        "least to most": "1.2800 to 1.4900",
        "seeds": "3",
        "- plain": "-0.1100",
        "95 % interval": "-0.1351 to -0.0849",
        "p": "7.8e-05",
        "verdict": "better",
        "below bigram": "no (2 of 3)",
    }
    assert table["alone"][-5:] == ["-0.2000", "", "", "one seed", "yes"]
    text = "\n".join(lines)
    # 100 a token, 1,000 steps of 8 rows of 256
    assert "plain: 1,000 steps, 2.00M tokens a cell, 205MFLOPs at 10.0k tok/s, data dddddddddddd" in text
    assert "bigram model has 1.4500" in text
    assert "Verdicts are for all 3 comparisons at once" in text
    assert "alone |" not in text
    assert "not trained alike" not in text


def test_a_diverged_seed_is_said_and_left_out(folder: Path) -> None:
    fabricate(folder, "better", 2, None)
    fabricate(folder, "alone", 0, None)
    found = comparison.of(folder)
    rows = {row.variant: row for row in found.rows}
    assert rows["better"].difference is not None
    assert rows["better"].difference.n == 2
    assert rows["better"].difference.mean == pytest.approx(-0.105)
    assert (rows["alone"].difference, rows["alone"].verdict) == (None, "diverged")
    text = page.markdown(found)
    assert "better: seed 2 diverged" in text
    (line,) = [line for line in text.splitlines() if line.startswith("| better")]
    assert line.endswith(" no (1 of 3) |")


def test_seeds_that_plain_does_not_have_are_no_pairs(folder: Path) -> None:
    fabricate(folder, "alone", 5, 1.1)
    (folder / "alone-s0.json").unlink()
    (row,) = [row for row in comparison.of(folder).rows if row.variant == "alone"]
    assert (row.difference, row.verdict, row.speed) == (None, "no common seed", None)


def test_cells_of_other_threads_are_told(folder: Path) -> None:
    fabricate(folder, "luck", 0, 1.5, environment={"threads": 2, "torch": "9.9"})
    (note,) = [note for note in comparison.of(folder).notes if "not trained alike" in note]
    assert "threads was 1 and 2" in note


def test_cells_that_differ_in_more_than_their_overrides_are_refused(folder: Path) -> None:
    path = fabricate(folder, "luck", 1, 1.5, smuggled={"train.steps": 2000})
    with pytest.raises(RunError, match=r"train\.steps is 2000 there and 1000 here; it does not compare with plain-s0"):
        comparison.of(folder)
    path.unlink()
    path = fabricate(folder, "luck", 1, 1.5, overrides={"optim.learning_rate": 0.5})
    with pytest.raises(RunError, match=r"luck-s1\.json: model\.layers\.0\.mixer\.qk_norm is True there and False here"):
        comparison.of(folder)
    path.unlink()
    path = fabricate(folder, "luck", 1, 1.5, data="e" * 64)
    with pytest.raises(RunError, match=r"luck-s1\.json: was trained on other data"):
        comparison.of(folder)
    path.unlink()
    fabricate(folder, "luck", 1, 1.5, tokens=5)
    with pytest.raises(RunError, match=r"learned 5 targets where plain-s1 learned 2,000,001"):
        comparison.of(folder)


def test_a_table_needs_plain_and_a_whole_bigram(folder: Path) -> None:
    (folder / "bigram.json").write_text('{"val_bpb": 1.45}')
    with pytest.raises(RunError, match=r"bigram\.json: data: missing|bigram\.json: targets: missing"):
        comparison.of(folder)
    for path in folder.glob("plain-*"):
        path.unlink()
    with pytest.raises(BadRequest, match="no cell of plain"):
        comparison.of(folder)


def test_the_app_prints_it(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["ablate", "--table", "--out", str(folder)])
    assert ablate_app() == 0
    assert (
        page.markdown(comparison.of(folder, list(variants.read(variants.find(variants.DEFAULT)).variants)))
        in capsys.readouterr().out
    )
    monkeypatch.setattr(sys, "argv", ["ablate", "--table", "--out", str(folder), "--json"])
    assert ablate_app() == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bigram_bpb"] == 1.45
    rows = {row["variant"]: row for row in result["rows"]}
    assert (rows["better"]["verdict"], rows["better"]["pairs"]) == ("better", 3)
    assert rows["alone"]["interval"] is None
    assert rows["plain"]["val_bpb"] == {"0": 1.5, "1": 1.6, "2": 1.4}


def test_the_picture_shows_means_intervals_and_seeds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(forest, "write", lambda figure, path: figures.append(figure))
    found = comparison.of(folder)
    forest.draw(found, folder / "blocks.png")
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["worse", "luck", "better"]  # from the bottom
    zero, *lines = [line.get_xdata() for line in axes.lines]
    assert list(zero) == [0, 0]
    half = 2.446912 * noise() * (2 / 3) ** 0.5
    bar, seeds, mean = lines[6:]
    assert list(bar) == pytest.approx([-0.11 - half, -0.11 + half], abs=1e-6)
    assert list(seeds) == pytest.approx([-0.10, -0.11, -0.12])
    assert list(mean) == pytest.approx([-0.11])


def test_the_app_draws_it(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    picture = folder / "blocks.png"
    monkeypatch.setattr(sys, "argv", ["ablate", "--table", "--out", str(folder), "--plot", str(picture)])
    assert ablate_app() == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    for options, word in (
        (["--table", "--out", str(folder), "--plot", str(folder / "none" / "x.png")], "cannot be written"),
        (["--plot", str(picture)], "--table"),
    ):
        monkeypatch.setattr(sys, "argv", ["ablate", *options])
        with pytest.raises(BadRequest, match=word):
            ablate_app()


def test_one_seed_has_no_interval_to_draw(folder: Path) -> None:
    for path in folder.glob("*-s[12].json"):
        path.unlink()
    with pytest.raises(BadRequest, match="two seeds"):
        forest.draw(comparison.of(folder), folder / "x.png")


def test_verdicts_are_corrected_for_how_many_there_are(folder: Path) -> None:
    rows = {row.variant: row for row in comparison.of(folder).rows}
    better, worse = rows["better"], rows["worse"]
    assert better.difference is not None
    assert worse.difference is not None
    # of three p-values the smallest counts three times, the next twice
    assert worse.holm == pytest.approx(3 * worse.difference.p)
    assert better.holm == pytest.approx(2 * better.difference.p)
    for number in range(20):  # as many again that say nothing, but that one of them is a little better
        OVERRIDES[f"copy{number}"], FLOPS[f"copy{number}"] = {"model.embed.tied": False}, 100.0
        for seed, score in enumerate((1.51, 1.58, 1.40) if number else (1.487, 1.587, 1.387)):
            fabricate(folder, f"copy{number}", seed, score)
    found = comparison.of(folder)
    (row,) = [row for row in found.rows if row.variant == "copy0"]
    assert row.difference is not None
    assert row.difference.p < 0.05
    assert row.holm == pytest.approx(21 * row.difference.p)  # two of the 23 are smaller
    assert (row.verdict, row.alone) == ("not distinguishable", "better")
    (line,) = [line for line in page.markdown(found).splitlines() if line.startswith("| copy0")]
    assert " better alone |" in line
    assert row.to_dict(1.0)["verdict"] == "not distinguishable"
    assert "with seeds as blocks and the noise of all variants pooled." in page.markdown(found)
    fabricate(folder, "copy1", 2, 9.0)
    assert "pooled (copy1: its own, which is another)." in page.markdown(comparison.of(folder))


def test_every_experiment_that_is_kept_can_be_read() -> None:
    """The cells under docs/benchmarks/ablation, of older versions, give the differences that their scores say."""
    folders = sorted(
        path for path in (Path(__file__).parents[1] / "docs/benchmarks/ablation").iterdir() if path.is_dir()
    )
    assert len(folders) >= 7
    for kept in folders:
        if not (kept / "plain-s0.json").exists():
            continue
        found = comparison.of(kept)
        plain = found.rows[0]
        assert len(found.rows) > 1
        for row in found.rows[1:]:
            common = [seed for seed in row.scores if seed in plain.scores]
            if common:
                mean = sum(row.scores[seed] - plain.scores[seed] for seed in common) / len(common)
                assert row.difference is not None
                assert row.difference.mean == pytest.approx(mean, abs=1e-12)
        assert page.markdown(found).count("\n|") >= len(found.rows)
