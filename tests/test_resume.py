"""Claim: resuming goes on exactly, or says in one line why it cannot; what may change needs permission, what may not is
refused, and what only rounds differently is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.common import strict_yaml
from tinycore.checkpoint import write_manifest

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
STOP_AT_6 = {"rank": 0, "step": 6, "signal": 15}  # saved at step 5


def refused(result: Any) -> str:
    """The one line of a refusal."""
    assert result.codes == [2], (result.codes, result.err)
    (line,) = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.err
    return line


@pytest.fixture(scope="module")
def stopped(sessions: Sessions, tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Copies of a run stopped at step 5, checkpoints of steps 4 and 5."""
    first = tmp_path_factory.mktemp("stopped") / "runs" / "first"
    (result,) = sessions([{"argv": ["--recipe", str(tiny_recipe), "--out", str(first)], "hurt": STOP_AT_6}])
    assert result.codes == [3], result.err

    def copy(name: str) -> Path:
        return Path(shutil.copytree(first, first.with_name(name)))

    return copy


def lineage(run: Path) -> dict[str, Any]:
    return json.loads((run / "status.json").read_text())["lineage"][-1]


def test_what_a_request_may_change(sessions: Sessions, stopped: Callable[[str], Path]) -> None:
    run = stopped("changes")
    resume = ["--resume", str(run)]
    rate = ["--optim.learning_rate", "0.001"]
    architecture, tokenizer, rates, past, allowed, finished, longer = sessions(
        [
            {"argv": [*resume, "--model.dim", "64"]},
            {"argv": [*resume, "--data.tokenizer.vocab_size", "310", "--model.vocab_size", "320"]},
            {"argv": [*resume, *rate]},
            {"argv": [*resume, "--train.steps", "3", "--allow-changes"]},
            {"argv": [*resume, *rate, "--allow-changes", "--train.log_every", "2"]},
            {"argv": resume},
            {"argv": [*resume, "--train.steps", "14", "--allow-changes"]},
        ]
    )
    assert "model.dim: the run has 32, the request 64" in refused(architecture)
    assert "tokenizer: the run has" in refused(tokenizer)
    assert refused(rates).endswith("differs from the saved run in optim.learning_rate; add --allow-changes to go on so")
    assert "optim.learning_rate  0.01 -> 0.001" in rates.err
    assert "train.steps: the run stands at step 5, past 3" in refused(past)
    assert allowed.codes == [0], allowed.err
    assert "train.log_every  1 -> 2" in allowed.out
    assert "is finished (step 12)" in refused(finished)
    assert longer.codes == [0], longer.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == [1, 2, 3, 4, 5, 6, 8, 10, 12, 14]
    assert max(row["learning_rate"] for row in rows if row["step"] > 5 and "loss" in row) == 0.001
    assert lineage(run) == {"event": "resume", "step": 12, "changes": {"train.steps": [12, 14]}}


def test_a_run_of_a_version_with_fewer_settings_goes_on(sessions: Sessions, stopped: Callable[[str], Path]) -> None:
    run = stopped("earlier")

    def without_newer(recipe: dict[str, Any]) -> dict[str, Any]:
        del recipe["data"]["kind"], recipe["train"]["ema"], recipe["train"]["stop"], recipe["train"]["epochs"]
        for layer in recipe["model"]["layers"]:
            del layer["mixer"]["causal"]
        del recipe["model"]["heads"]["lm"]["probabilities"]
        return recipe

    file = run / "recipe.yaml"
    file.write_text(strict_yaml.dump(without_newer(strict_yaml.read(file))))
    for checkpoint in run.glob("checkpoints/step_*"):
        trainer = json.loads((checkpoint / "trainer.json").read_text())
        trainer["recipe"] = without_newer(trainer["recipe"])
        (checkpoint / "trainer.json").write_text(json.dumps(trainer))
        write_manifest(checkpoint)
    (result,) = sessions([{"argv": ["--resume", str(run)]}])
    assert result.codes == [0], result.err
    assert "saved -> requested" not in result.err
    assert lineage(run)["changes"] == {}


def test_changed_data_is_read_from_its_beginning(
    sessions: Sessions, stopped: Callable[[str], Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    run, text = stopped("data"), tmp_path / "other.txt"
    words = (tiny_recipe.parent / "text.txt").read_text()
    text.write_text(words[: len(words) // 2])
    saved = next((run / "checkpoints").glob("*5")) / "tokenizer.json"
    source = ["--data.sources.0.path", str(text), "--data.tokenizer.kind", "file", "--data.tokenizer.path", str(saved)]
    asked, allowed = sessions(
        [{"argv": ["--resume", str(run), *source, *extra]} for extra in ([], ["--allow-changes"])]
    )
    assert "data.sources.0.path" in refused(asked)
    assert "dataset.train" in asked.err
    assert allowed.codes == [0], allowed.err
    assert "the data or its order changed: reading it from its beginning" in allowed.err


def test_another_number_of_processes_keeps_the_order_and_says_so(
    sessions: Sessions, stopped: Callable[[str], Path], tiny_recipe: Path
) -> None:
    one, two = stopped("one"), stopped("two")
    alone, together = sessions(
        [
            {"argv": ["--resume", str(one)]},
            {"argv": ["--resume", str(two), "--train.micro_batch", "8"], "world": 2},
        ]
    )
    assert alone.codes == [0], alone.err
    assert together.codes == [0, 0], together.err
    assert "a micro-batch of 8 does not fit 2 processes; taking 4" in together.out
    assert "not bit-exact from here on, because" in together.err
    assert "environment.processes  1 -> 2" in together.err
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    for first, second in zip(*rows, strict=True):
        assert first["tokens"] == second["tokens"]  # the same rows in every step
        assert first.get("loss", 0) == pytest.approx(second.get("loss", 0), abs=1e-4)


def test_a_damaged_checkpoint_is_said_and_kept(sessions: Sessions, stopped: Callable[[str], Path]) -> None:
    run, hopeless, whole = stopped("damaged"), stopped("hopeless"), stopped("whole")
    weights = run / "checkpoints" / "step_00000005" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    for path in (hopeless / "checkpoints").iterdir():
        (path / "trainer.json").unlink()
    fallen_back, nothing, reference = sessions([{"argv": ["--resume", str(path)]} for path in (run, hopeless, whole)])
    assert fallen_back.codes == [0], fallen_back.err
    assert f"{weights}: damaged" in fallen_back.err
    assert "going back to step_00000004" in fallen_back.err
    assert (run / "checkpoints" / "damaged-step_00000005" / "model.safetensors").exists()
    assert "resuming" in fallen_back.out
    assert reference.codes == [0], reference.err
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert "trainer.json: missing" in refused(nothing)


def test_a_full_disk_while_saving_loses_nothing(sessions: Sessions, tiny_recipe: Path, tmp_path: Path) -> None:
    """The limit is the system's; model.safetensors (117 kB) still fits under the first, under the second it does not."""
    whole = tmp_path / "runs" / "whole"
    start = ["--recipe", str(tiny_recipe), "--out"]
    runs = [tmp_path / "runs" / name for name in ("optimizer", "model")]
    results = sessions(
        [
            {"argv": [*start, str(whole)]},
            *({"argv": [*start, str(run)], "hurt": STOP_AT_6} for run in runs),
            *(
                {"argv": ["--resume", str(run)], "hurt": {"file_bytes": size}}
                for run, size in zip(runs, (200_000, 100_000), strict=True)
            ),
            *({"argv": ["--resume", str(run)]} for run in runs),
        ]
    )
    for run, full, resumed in zip(runs, results[3:5], results[5:], strict=True):
        line = refused(full)
        assert f"{run / 'checkpoints' / 'step_00000008'}: " in line
        assert "what was saved before is intact, make room and resume" in line
        assert resumed.codes == [0], resumed.err
        assert "at step 5" in resumed.out
        assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_weights_of_another_run(
    sessions: Sessions, stopped: Callable[[str], Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    origin, run, text = stopped("origin"), tmp_path / "runs" / "continued", tmp_path / "new.txt"
    words = (tiny_recipe.parent / "text.txt").read_text()
    text.write_text(words[len(words) // 2 :])
    start = ["--recipe", str(tiny_recipe), "--out", str(run), "--data.sources.0.path", str(text), "--json"]
    early = tmp_path / "runs" / "early"
    killed = {"rank": 0, "step": 2, "signal": 9}
    other, missing, continued, _, restarted = sessions(
        [
            {"argv": [*start, "--init-from", str(origin), "--model.dim", "64"]},
            {"argv": [*start, "--init-from", str(tmp_path)]},
            {"argv": [*start, "--init-from", str(origin)]},
            {"argv": [*start, "--out", str(early), "--init-from", str(origin)], "hurt": killed},
            {"argv": ["--resume", str(early)]},
        ]
    )
    assert "model.dim is 32 in these weights and 64 in the recipe" in refused(other)
    assert "neither a run nor a checkpoint" in refused(missing)
    assert continued.codes == [0], continued.err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    before = [json.loads(line) for line in (origin / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["step"] == 1
    assert rows[0]["loss"] < before[0]["loss"] - 0.5  # it knows something already
    assert rows[0]["learning_rate"] == pytest.approx(0.01 / 3)  # and its schedule is new
    # killed before its first checkpoint, it begins with those weights again
    assert restarted.codes == [0], restarted.err
    assert (early / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    first = json.loads((run / "status.json").read_text())["lineage"][0]
    best = (origin / "best").read_text().strip()
    assert first == {"event": "init-from", "checkpoint": str(origin / "checkpoints" / best), "step": int(best[5:])}
    saved = [path / "checkpoints" / (path / "latest").read_text().strip() / "tokenizer.json" for path in (origin, run)]
    assert saved[0].read_bytes() == saved[1].read_bytes()


def test_run_directories_are_not_overwritten(
    sessions: Sessions, stopped: Callable[[str], Path], tiny_recipe: Path
) -> None:
    run = stopped("there")
    start = {"argv": ["--recipe", str(tiny_recipe), "--out", str(run), "--train.steps", "1", "--json"]}
    first, resumed, second, missing = sessions(
        [start, {"argv": ["--resume", str(run)]}, start, {"argv": ["--resume", str(run / "nowhere")]}]
    )
    assert f"continue it with `uv run apps/pretrain --resume {run}`" in refused(first)
    assert resumed.codes == [0], resumed.err
    metrics = (run / "metrics.jsonl").read_bytes()
    assert second.codes == [0], second.err
    assert f"{run} holds a finished run; this one goes to {run}-2" in second.err
    assert second.json["checkpoint"] == f"{run}-2/checkpoints/step_00000001"
    assert (run / "metrics.jsonl").read_bytes() == metrics
    assert "nowhere" in refused(missing)


def test_a_log_line_is_the_mean_since_the_one_before_and_a_stop_between_does_not_show(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    start = ["--recipe", str(tiny_recipe), "--out"]
    every, whole, parts = (tmp_path / "runs" / name for name in ("every", "whole", "parts"))
    fifth = ["--train.log_every", "5", "--train.micro_batch", "2"]
    stop = {"rank": 0, "step": 8, "signal": 15}  # saved at step 7, two steps after a log line
    results = sessions(
        [
            {"argv": [*start, str(every)]},
            {"argv": [*start, str(whole), *fifth], "world": 2},
            {"argv": [*start, str(parts), *fifth], "world": 2, "hurt": stop},
            {"argv": ["--resume", str(parts)], "world": 2},
        ]
    )
    assert [result.codes for result in results] == [[0], [0, 0], [3, 3], [0, 0]], [result.err for result in results]
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()

    def losses(run: Path) -> dict[int, tuple[int, float]]:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: (row["tokens"], row["loss"]) for row in rows if "loss" in row}

    single, fives = losses(every), losses(whole)
    assert list(fives) == [5, 10, 12]
    seen = 0
    for step, (tokens, loss) in fives.items():
        total, before = 0.0, single[seen][0] if seen else 0
        for each in range(seen + 1, step + 1):
            total += single[each][1] * (single[each][0] - before)
            before = single[each][0]
        assert tokens == before
        assert loss == pytest.approx(total / (tokens - (single[seen][0] if seen else 0)), rel=1e-5)
        seen = step


@pytest.mark.parametrize("world", [1, 2])
def test_masks_of_dropout_go_on_where_they_were(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, world: int
) -> None:
    """Killed two steps after a checkpoint, the run draws again the masks that it would have drawn."""
    plain, whole, parts = (tmp_path / "runs" / name for name in ("plain", "whole", "parts"))
    start = ["--recipe", str(tiny_recipe), "--train.micro_batch", "2", "--out"]
    dropout = ["--model.dropout.rate", "0.2", "--model.dropout.growth", "0.5"]
    killed = {"rank": 0, "step": 7, "signal": 9}
    results = sessions(
        [
            {"argv": [*start, str(plain)], "world": world},
            {"argv": [*start, str(whole), *dropout], "world": world},
            {"argv": [*start, str(parts), *dropout], "world": world, "hurt": killed},
            {"argv": ["--resume", str(parts)], "world": world},
        ]
    )
    assert [result.codes[0] for result in results] == [0, 0, -9, 0], [result.err for result in results]
    final = Path("checkpoints") / "step_00000012" / "model.safetensors"
    for name in ("metrics.jsonl", final):
        assert (parts / name).read_bytes() == (whole / name).read_bytes(), name
        assert (plain / name).read_bytes() != (whole / name).read_bytes(), name
    assert strict_yaml.read(parts / "recipe.yaml")["model"]["dropout"] == {"rate": 0.2, "growth": 0.5}


CMS = ["--model.layers.0.ffn", "{kind: cms, hidden: 16, periods: [1, 3, 7]}"]
KINDS = {
    "cms": CMS,
    "moe": ["--model.layers.0.ffn", "{kind: moe, hidden: 16, experts: 4}"],
    "muon": [*CMS, "--optim.kind", "muon", "--optim.weight_decay_until", "0.5", "--train.recompute", "layers"],
    "m3": [*CMS, "--optim.kind", "m3", "--optim.slow_period", "5"],
    "deep_momentum": [*CMS, "--optim.kind", "deep_momentum"],
    "delta_gd": [*CMS, "--optim.kind", "delta_gd"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_is_exact_with_state_of_other_kinds(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path, kind: str
) -> None:
    """Stopped inside the windows of slow levels, and between log lines of statistics: weights and logs are the same."""
    start = [
        "--recipe",
        str(tiny_recipe),
        *KINDS[kind],
        "--train.log_every",
        "3",
        "--out",
    ]
    whole, parts = (tmp_path / "runs" / name for name in ("whole", "parts"))
    results = sessions(
        [
            {"argv": [*start, str(whole)]},
            {"argv": [*start, str(parts)], "hurt": STOP_AT_6},
            {"argv": ["--resume", str(parts)]},
        ]
    )
    assert [result.codes for result in results] == [[0], [3], [0]], [result.err for result in results]
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    last = "checkpoints/step_00000012"
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert (parts / last / name).read_bytes() == (whole / last / name).read_bytes()
    saved = json.loads((parts / "checkpoints" / "step_00000008" / "trainer.json").read_text())["optimizer"]
    waited = {int(value) for name, value in saved.items() if name.endswith("/waited")}
    assert waited == (set() if kind == "moe" else {1, 2})
    row = json.loads((whole / "metrics.jsonl").read_text().splitlines()[0])
    assert ("experts/usage/3" in row) == (kind == "moe")
