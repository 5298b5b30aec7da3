"""`apps/bench scratchpads`: every form is trained and asked, a stopped run goes on, and what drivers find is what counts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from apps.bench import scratchpads, scratchpads_report, scratchpads_trial
from apps.bench.scratchpads_trial import FORMS, LEARNED, Trial
from apps.common.errors import BadRequest
from tinyreason.testing import Scripted

SHORT = ("--steps", "2", "--problems", "3", "--seeds", "1")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has learned nothing writes to the end of the room there is: ask for little, of few problems."""
    monkeypatch.setattr(scratchpads, "TIMES", (1, 2))
    monkeypatch.setattr(scratchpads_trial, "TIMES", (1, 2))
    monkeypatch.setattr(scratchpads_trial, "POOL", 200)


@pytest.mark.usefixtures("short")
def test_every_form_of_every_task_is_trained_and_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, plot = tmp_path / "found.json", tmp_path / "found.png"
    assert scratchpads.main([*SHORT, "--json", str(target), "--plot", str(plot)]) == 0
    document = json.loads(target.read_text("utf-8"))
    assert set(document["cells"]) == {f"{task} | {form} | 0" for task, forms in FORMS.items() for form in forms}
    for key, cell in document["cells"].items():
        longest = LEARNED[key.split(" | ")[0]][1]
        assert cell["tokens"] == 2 * 8 * 128, "the same for all"
        assert 0.8 * cell["tokens"] < cell["tokens_not_padding"] <= cell["tokens"]
        assert [asked["size"] for asked in cell["asked"].values()] == [longest, 2 * longest]
        assert all(asked["n"] == sum(asked["ended"].values()) == 3 for asked in cell["asked"].values())
    assert set(document["summary"]) == {f"{task} | {form}" for task, forms in FORMS.items() for form in forms}
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "| sorting, inductive" in capsys.readouterr().out


@pytest.mark.usefixtures("short")
def test_a_stopped_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "found.json"
    command = [*SHORT, "--tasks", "parity", "--forms", "direct,inductive", "--json", str(target)]
    assert scratchpads.main(command) == 0
    before = json.loads(target.read_text("utf-8"))["cells"]
    trained: list[int] = []
    run = Trial.run
    monkeypatch.setattr(Trial, "run", lambda trial: (trained.append(trial.seed), run(trial))[1])
    assert scratchpads.main([*command, "--seeds", "2"]) == 0
    assert trained == [1, 1], "the second seed only"
    after = json.loads(target.read_text("utf-8"))["cells"]
    assert {key: after[key] for key in before} == before
    with pytest.raises(BadRequest, match="measured with other rate"):
        scratchpads.main([*command, "--rate", "0.1"])


@pytest.mark.parametrize(("task", "form"), [(task, form) for task, forms in FORMS.items() for form in forms])
def test_whoever_writes_what_is_to_be_learned_is_right(task: str, form: str) -> None:
    trial = Trial(task, form, 0, {"problems": 6})
    problems = trial._test(LEARNED[task][1] * 2)
    assert len(problems) == 6
    texts: dict[str, str] = {}
    for problem in problems:
        if task != "notes":
            texts |= dict(problem.pairs(form))
            continue
        parts = problem.parts(form == "notes")
        for count, (text, learned) in enumerate(parts):
            if learned:
                texts["".join(before for before, _ in parts[:count])] = text
    found = trial._asked(Scripted(lambda prompt, sample: texts[prompt]), problems, 2)
    assert (found["right"], found["standard_error"]) == (6, 0)
    wrong = Scripted(lambda prompt, sample: texts.get(prompt, "??")[:-1])
    assert trial._asked(wrong, problems, 2)["right"] == 0


@pytest.mark.parametrize("task", FORMS)
def test_test_problems_are_never_learned_from(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(task, "direct", 0, {"problems": 20, "positions": "mixed", "steps": 1, "rate": 0.001})
    held_out = [problem for times in (1, 2, 4, 6) for problem in trial._test(times * trial.longest)]
    learned: list[Any] = []

    def stop(problems: list[Any]) -> None:
        learned.extend(problems)
        raise InterruptedError

    monkeypatch.setattr(trial, "_encoded", stop)
    with pytest.raises(InterruptedError):
        trial.run()
    assert len(learned) > 1000
    assert not {repr(problem) for problem in learned} & {repr(problem) for problem in held_out}


def test_the_table_says_what_the_cells_hold() -> None:
    cells = {
        f"parity | plain | {seed}": {
            "tokens": 4096,
            "parameters": 1,
            "asked": {"1": {"accuracy": share, "size": 4, "n": 10, "tokens_written": 5.0}},
        }
        for seed, share in enumerate((0.1, 0.2, 0.6))
    }
    (found,) = scratchpads_report.summary(cells)["parity | plain"].values()
    assert (round(found["mean"], 9), found["least"], found["most"], found["seeds"]) == (0.3, 0.1, 0.6, 3)
    assert found["standard_error"] == pytest.approx((0.07 / 3) ** 0.5)
    assert "30 ±15" in scratchpads_report.markdown(cells, {"steps": 2})


def test_what_cannot_be_is_one_line() -> None:
    for option, value in (("tasks", "parity,sums"), ("forms", "spoken")):
        with pytest.raises(BadRequest, match=f"--{option}: '{value.split(',')[-1]}' is none of"):
            scratchpads.main([f"--{option}", value])
    with pytest.raises(BadRequest, match="--forms: none of the tasks"):
        scratchpads.main(["--tasks", "notes", "--forms", "plain"])
    with pytest.raises(BadRequest, match="--positions: 'here'"):
        scratchpads.main(["--positions", "here"])
    assert list(itertools.chain(*FORMS.values())).count("direct") == 4
