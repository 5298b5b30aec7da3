"""apps/pipeline, evaluate, verify and reason on a model that is too small to know anything: stages go on where they were,
results say what was counted, verifiers learn from what they are given, bad requests are one line."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from apps.common import solver
from apps.common.errors import BadRequest
from apps.common.problem_config import ExerciseData
from apps.common.problems import generated
from apps.evaluate import refinement
from apps.evaluate.__main__ import run as evaluate
from apps.evaluate.__main__ import unseen
from apps.pipeline import plan
from apps.reason import display
from apps.reason.__main__ import run as reason
from apps.verify import curves, sampling
from apps.verify.__main__ import run as verify
from apps.verify.sampling import Sampled
from tinydata import split_of
from tinydata.synthetic.exercise import Exercise, Step
from tinyreason import Call, Completion, ExecutionVerifier, Spent, majority_vote
from tinyreason.test_time import Candidate, Chosen

PIPELINE = (Path(__file__).parent / "drivers" / "tiny_pipeline.yaml").read_text()
APPS = {"evaluate": evaluate, "verify": verify, "reason": reason}


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    (folder / "tiny.yaml").write_text(PIPELINE.replace("CACHE", str(folder / "cache")))
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "apps.pipeline", "--recipe", str(folder / "tiny.yaml"), "--json", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def stages(pipeline: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the finished pipeline, and what it printed."""
    out = pipeline / "out"
    first = run(pipeline, "--out", str(out), "--until", "pretrain")
    assert first.returncode == 0, first.stderr
    assert not (out / "tools").exists()
    done = run(pipeline, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "[1/3] pretrain: done before" in done.stderr
    return out, json.loads(done.stdout)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """An app in this process: its exit status, its JSON object (None without --json), all else that it printed."""

    def called(app: str, *arguments: object) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", [app, *map(str, arguments)])
        status = APPS[app]()
        printed = capsys.readouterr()
        if "--json" not in arguments:
            return status, None, printed.out
        return status, json.loads(printed.out.splitlines()[-1]), printed.err

    return called


def test_stages_are_done_once_and_reported(stages: tuple[Path, dict[str, Any]], pipeline: Path) -> None:
    out, result = stages
    assert list(result["stages"]) == ["pretrain", "tools", "scores"]
    assert result["stages"]["pretrain"]["parameters"] == result["stages"]["tools"]["parameters"]
    report = (out / "report.md").read_text()
    assert all(f"## {name}" in report for name in ("pretrain", "tools", "scores"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    again = run(pipeline, "--out", str(out))
    assert again.returncode == 0
    assert again.stderr.count("done before") == 3
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before
    other = run(pipeline, "--out", str(out), "--seed", "5")
    assert other.returncode == 2
    assert other.stderr.strip() == f"error: {out}: holds a pipeline with another seed; give another --out"


def test_a_stopped_pipeline_goes_on(pipeline: Path) -> None:
    out = pipeline / "stopped"
    text = (pipeline / "tiny.yaml").read_text().replace("steps: 3,", "steps: 3000, log_every: 1,", 1)
    (pipeline / "long.yaml").write_text(text)
    command = [sys.executable, "-m", "apps.pipeline", "--recipe", str(pipeline / "long.yaml"), "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    metrics = out / "pretrain" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and metrics.read_text().count("\n") > 2):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 3, said
    assert "the same command goes on from there" in said
    assert json.loads((out / "pretrain" / "status.json").read_text())["status"] == "stopped"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage": 1}, "unknown key 'stage'"),
        ({"stages": []}, "stages: takes a list of at least one stage"),
        ({"stages": [{"name": "a", "app": "finetune", "from": "b", "recipe": "x"}]}, "from: 'b' is no earlier stage"),
        ({"stages": [{"name": "A b", "app": "pretrain", "recipe": {}}]}, "name: 'A b' is not a name"),
        ({"stages": [{"name": "a", "app": "rm", "recipe": {}}]}, "app: 'rm' is none of pretrain, finetune"),
        ({"stages": [{"name": "a", "app": "pretrain"}]}, "recipe: takes a name or a mapping"),
        ({"stages": [{"name": "a", "app": "pretrain", "recipe": {"model": {}}}]}, "recipe.model: the pipeline names"),
        ({"stages": [{"name": "a", "app": "pretrain", "recipe": {}, "from": "a"}]}, "begins with fresh weights"),
        ({"stages": [{"name": "../a", "app": "pretrain", "recipe": {}}]}, "is not a name of lower-case letters"),
        (
            {
                "stages": [
                    {"name": "a", "app": "pretrain", "recipe": {}},
                    {"name": "b", "app": "evaluate", "from": "a", "options": {"verifier": "{c}/verifier"}},
                ]
            },
            "options.verifier: there is no earlier stage 'c'",
        ),
        ({"model": None}, "model: takes the model"),
        ({"stages": 2 * [{"name": "a", "app": "pretrain", "recipe": {}}]}, "there are two stages 'a'"),
    ],
)
def test_pipelines_that_are_none(change: dict[str, Any], message: str) -> None:
    good = {"model": {}, "stages": [{"name": "a", "app": "pretrain", "recipe": {}}]}
    assert plan.parse("x", good, "x.yaml").stages[0].trains
    with pytest.raises(BadRequest, match=re.escape(message)):
        plan.parse("x", good | change, "x.yaml")


@pytest.mark.parametrize("name", plan.names())
def test_the_pipelines_of_the_project_are_whole(name: str) -> None:
    from apps.common import recipes
    from apps.finetune.__main__ import DIRECTORY

    found = plan.read(name)
    assert found.description
    for stage in found.stages:
        if stage.app == "finetune" and isinstance(stage.recipe, str):
            assert (DIRECTORY / f"{stage.recipe}.yaml").is_file()
        elif isinstance(stage.recipe, dict):
            recipes.from_dict({"model": found.model, **stage.recipe})


def test_evaluation_counts_what_it_says(
    stages: tuple[Path, dict[str, Any]], call: Callable[..., Any], tmp_path: Path
) -> None:
    out, result = stages
    cells = result["stages"]["scores"]["cells"]
    assert [(cell["kind"], cell["form"]) for cell in cells] == list(
        itertools.product(["words", "multiplication"], ["calculator", "program"])
    )
    assert all(cell["problems"] == 6 and 0 <= cell["exact"] <= 1 for cell in cells)
    assert all(len(cell["rounds"]) == 2 for cell in cells)
    status, found, _ = call("evaluate", out / "tools", "--kinds", "words", "--forms", "once", "--problems", 3, "--json")
    assert status == 0
    assert [cell["form"] for cell in found["cells"]] == ["once"]
    with pytest.raises(BadRequest, match="--forms: 'twice' is none of once, hand"):
        call("evaluate", out / "tools", "--forms", "twice")
    with pytest.raises(BadRequest, match="give one run or checkpoint"):
        call("evaluate")


class Improving:
    """Writes 1, then 2, then 3 and again 1 after an attempt."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def generate(self, prompts: list[str], **settings: Any) -> list[list[Completion]]:
        self.asked.append(prompts)
        return [[Completion(f"<think>x</think>\nAnswer: {(len(self.asked) - 1) % 3 + 1}")] for _ in prompts]


def test_rounds_of_refinement_are_counted_and_judged() -> None:
    problems = [Exercise("x", f"number {number}?", (Step("", 1, "+", number, 1 + number),)) for number in (0, 1, 2)]
    free = Improving()
    found = refinement.rounds(cast(Any, free), problems, "calculator", 3, 9)
    assert [one.right for one in found] == [1, 1, 1, 1]
    assert [(one.mended, one.spoilt) for one in found] == [(0, 0), (1, 1), (1, 1), (1, 1)]
    assert free.asked[1][0] == "Question: number 0?\nBy calculator:\nx\nAnswer: 1\nBetter:\n"

    class Likes:
        def score_all(self, answers: list[tuple[str, str]]) -> list[float]:
            assert all(prompt.endswith("By calculator:\n") for prompt, _ in answers)
            return [{"1": 0.2, "2": 0.9, "3": 0.5}[text[-1]] for _, text in answers]

    judged = refinement.rounds(cast(Any, Improving()), problems, "calculator", 3, 9, cast(Any, Likes()))
    assert [(one.right, one.mended, one.spoilt) for one in judged] == [(1, 0, 0), (1, 1, 1), (1, 0, 0), (1, 0, 0)]


def test_what_is_scored_was_never_trained_on(stages: tuple[Path, dict[str, Any]]) -> None:
    model = solver.load(stages[0] / "tools")
    assert model.learned
    trained = {exercise.question for exercise in generated(model.data, "train")}
    looked_at = {exercise.question for exercise in generated(model.data, "validation")}
    for kind in ("words", "multiplication"):
        scored = [exercise.question for exercise in unseen(model, kind, 40)]
        assert len(set(scored)) == 40
        assert not set(scored) & (trained | looked_at)
        shares = {"validation": model.data.validation, "test": model.data.test}
        assert {split_of(question, shares) for question in scored} == {"test"}
    small = solver.Solver(model.checkpoint, model.model, model.tokenizer, ExerciseData(digits=1), True)
    with pytest.raises(ValueError, match="hardly more than 405 different problems of kind 'multiplication'"):
        unseen(small, "multiplication", 50)


def test_a_model_without_answers_says_so(stages: tuple[Path, dict[str, Any]], call: Callable[..., Any]) -> None:
    out, _ = stages
    status, found, _ = call("reason", out / "tools", "What is 3 * 4?", "--n", 2, "--max-tokens", 4, "--json")
    assert (status, found["answer"], len(found["candidates"])) == (0, None, 2)
    status, _, said = call("reason", out / "tools", "What is <calc>1+1</calc>?", "--max-tokens", 4)
    assert status == 0
    assert "no answer was found in it" in said
    with pytest.raises(BadRequest, match="give a run and a question"):
        call("reason", out / "tools")
    with pytest.raises(BadRequest, match="has no value head"):
        call("reason", out / "tools", "1 + 1?", "--verifier", out / "tools")
    with pytest.raises(BadRequest, match="--choose verifier: takes a verifier"):
        call("reason", out / "tools", "1 + 1?", "--choose", "verifier")
    with pytest.raises(BadRequest, match=r"the question has .* tokens, and the model's context 160"):
        call("reason", out / "tools", "why " * 200)
    with pytest.raises(BadRequest, match="did not learn exercises"):
        call("reason", out / "pretrain", "1 + 1?", "--form", "program")


def fabricated(count: int, samples: int) -> Iterator[Sampled]:
    """Right answers say yes and wrong ones say no: easily told apart."""
    for number in range(count):
        right = tuple((number + sample) % 3 == 0 for sample in range(samples))
        texts = tuple(
            f"{'yes' if good else 'no'} {sample}\nAnswer: {7 if good else 8}" for sample, good in enumerate(right)
        )
        yield Sampled(f"Question: {number}?\n", "7", texts, tuple("7" if good else "8" for good in right), right, 50)


def test_a_verifier_is_trained_on_what_is_kept_and_measured(
    stages: tuple[Path, dict[str, Any]], call: Callable[..., Any], tmp_path: Path
) -> None:
    out = tmp_path / "verifier"
    generator = stages[0] / "tools"
    asked = [
        "--problems",
        60,
        "--samples",
        6,
        "--test",
        20,
        "--test-samples",
        4,
        "--max-tokens",
        8,
        "--form",
        "calculator",
    ]
    checkpoint = str(solver.load(generator).checkpoint)
    common = {
        "generator": checkpoint,
        "kinds": ["words"],
        "steps": [1, 1],
        "form": "calculator",
        "max_tokens": 8,
        "seed": 0,
    }
    out.mkdir()
    sampling.keep(
        out / "samples.jsonl",
        list(fabricated(60, 6)),
        common | {"side": "validation", "problems": 60, "samples": 6},
    )
    sampling.keep(out / "test.jsonl", list(fabricated(20, 4)), common | {"side": "test", "test": 20, "test-samples": 4})
    training = [
        "--train.steps",
        60,
        "--train.batch_size",
        16,
        "--optim.learning_rate",
        0.02,
        "--train.validate_every",
        30,
    ]
    status, found, said = call("verify", generator, *asked, "--out", out, *training, "--json")
    assert status == 0, said
    assert found["auc"] > 0.95
    best = {(point["way"], point["n"]): point["accuracy"] for point in found["curves"]}
    assert best["oracle", 4] == 1.0
    assert best["verifier", 4] > 0.9
    assert best["majority", 4] < 0.5
    assert best["verifier", 1] == pytest.approx(found["accuracy_of_one"])
    assert (out / "curves.png").stat().st_size > 1000
    again, repeated, said = call("verify", generator, *asked, "--out", out, *training, "--json")
    assert again == 0
    assert repeated == found
    with pytest.raises(BadRequest, match="was sampled with samples 6, now 7; give another --out"):
        call("verify", generator, *asked[:3], 7, *asked[4:], "--out", out)
    chosen, answer, _ = call(
        "reason", generator, "1 + 1?", "--n", 3, "--verifier", out / "verifier", "--max-tokens", 4, "--json"
    )
    assert chosen == 0
    assert all(0 <= candidate["score"] <= 1 for candidate in answer["candidates"])


def test_answers_that_are_all_wrong_teach_nothing(
    stages: tuple[Path, dict[str, Any]], call: Callable[..., Any], tmp_path: Path
) -> None:
    few = ["--problems", 2, "--samples", 2, "--max-tokens", 4, "--out", tmp_path / "v"]
    with pytest.raises(BadRequest, match="all right or all wrong"):
        call("verify", stages[0] / "tools", *few)
    with pytest.raises(BadRequest, match="--kinds: 'sums' is none of words"):
        call("verify", stages[0] / "tools", "--kinds", "sums", "--out", tmp_path / "w")
    with pytest.raises(BadRequest, match=r"--steps: '9-x' is not of the form 2-4"):
        call("verify", stages[0] / "tools", "--steps", "9-x", "--out", tmp_path / "w")


def test_curves_are_what_choosing_gives() -> None:
    rows = list(fabricated(9, 5))
    points = {(point.way, point.n): point for point in curves.curves(rows, None, [1, 3, 5, 8], ExecutionVerifier())}
    assert {n for _, n in points} == {1, 3, 5}
    assert points["oracle", 1].accuracy == pytest.approx(sum(sum(row.right) for row in rows) / 45)
    assert points["majority", 1].accuracy == pytest.approx(points["oracle", 1].accuracy)
    whole = [majority_vote(row.answers) == "7" for row in rows]
    assert points["majority", 5].accuracy == pytest.approx(sum(whole) / 9)
    triples = [
        any(row.right[index] for index in choice) for row in rows for choice in itertools.combinations(range(5), 3)
    ]
    assert points["oracle", 3].accuracy == pytest.approx(sum(triples) / len(triples))
    scores = [[1.0 if right else 0.1 for right in row.right] for row in rows]
    with_scores = {(point.way, point.n): point for point in curves.curves(rows, scores, [3], ExecutionVerifier())}
    assert with_scores["verifier", 3].accuracy == pytest.approx(points["oracle", 3].accuracy, abs=0.15)
    assert "N = 3" in curves.shown(list(points.values()))


def test_samples_become_verdicts_by_outcome_and_by_step() -> None:
    text = "<think><calc>1+1</calc><result>2</result>\n3*2=7</think>\nAnswer: 7"
    row = Sampled("Q?\n", "6", (text, text, ""), ("7", "7", None), (False, False, False), 9)
    (outcome,) = sampling.verdicts([row], "outcome")
    assert outcome.parts == ((len(text), 0),)
    (process,) = sampling.verdicts([row], "process")
    assert [label for _, label in process.parts] == [1, 0, 0]
    assert process.parts[-1][0] == len(text)


def test_what_a_person_sees() -> None:
    text = "<think>Multiply: <calc>347*892</calc><result>309524</result></think>\nAnswer: 309524\x1b[2J"
    call = Call("calc", "347*892", "309524")
    candidate = Candidate(Completion(text, 30, "stop", -1.0, (call,)), "309524", 0.75)
    other = Candidate(Completion("", finish="error"), None, 0.0)
    shown = display.shown("Question: x\n", Chosen(0, (candidate, other), Spent(30, 2, 1, 0.5)), 4)
    assert "calc: 347*892\n      -> 309524" in shown
    assert "answer: 309524" in shown
    assert "0.750" in shown
    assert "2 of 4 were not asked for" in shown
    assert "\x1b" not in shown
