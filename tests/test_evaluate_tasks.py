"""`apps/evaluate --tasks`: log-likelihoods against a loop without batches, results that are kept, runs that are compared."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from apps.common import eval_tasks
from apps.common.errors import BadRequest, RunError
from apps.common.eval_model import CheckpointModel, windows
from apps.evaluate import auto, scored, stored
from apps.evaluate.__main__ import run as evaluate
from tinydata import Document, Tokenizer, train_tokenizer
from tinydata.special_tokens import SPECIAL_TOKENS
from tinyeval import Incomparable, RandomModel, Result, Results, TaskError, tasks
from tinyeval.task import from_dict

TEXT = "the cat sat on the mat and the dog ran to a red house. Question: 3 + 4 = 7\n\n15 - 8 = 7. Answer: yes, ñandú. "
CONTEXT = 48
Call = Callable[..., tuple[int, Any, str]]


def tokenizer_of(vocab: int, tags: bool = True) -> Tokenizer:
    special = SPECIAL_TOKENS if tags else SPECIAL_TOKENS[:1]
    return train_tokenizer([Document(TEXT * 4, "test")], vocab, special)


def checkpoint(path: Path, tokenizer: Tokenizer, seed: int = 0, context: int = CONTEXT) -> Path:
    """A model of a few thousand parameters that was never trained, weights large enough that it has opinions."""
    layer = {"mixer": {"kind": "attention", "heads": 2, "kv_heads": 1}, "ffn": {"kind": "swiglu", "hidden": 16}}
    config = {"vocab_size": tokenizer.vocab_size, "dim": 16, "max_seq_len": context, "layers": [layer]}
    torch.manual_seed(seed)
    model = tinycore.build(tinycore.ModelConfig.from_dict(config))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    path.mkdir(parents=True)
    tinycore.save(model, path)
    tokenizer.save(path)
    tinycore.checkpoint.write_manifest(path)
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_of(300)


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Tokenizer) -> Path:
    return checkpoint(tmp_path / "tiny", tokenizer)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The app in this process: its exit status, its JSON object (None without --json), all else that it printed."""

    def called(*arguments: object) -> tuple[int, Any, str]:
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        status = evaluate()
        printed = capsys.readouterr()
        if "--json" not in arguments:
            return status, None, printed.out
        return status, json.loads(printed.out.splitlines()[-1]), printed.err

    return called


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tasks that are asked of a model, in order."""
    names: list[str] = []
    real = scored.evaluate

    def counted(model: Any, task: Any, **settings: Any) -> Any:
        names.append(task.name)
        return real(model, task, **settings)

    monkeypatch.setattr(scored, "evaluate", counted)
    return names


def by_hand(model: Any, ids: list[int], first: int) -> tuple[float, bool]:
    """ln p of ids[first:] in float64, each from a forward pass of its own over what stands before it."""
    total, greedy = 0.0, True
    with torch.no_grad():
        for place in range(first, len(ids)):
            row = model(torch.tensor([ids[:place]])).logits[0, -1]
            total += float(torch.log_softmax(row, -1)[ids[place]])
            greedy = greedy and int(row.argmax()) == ids[place]
    return total, greedy


def test_log_likelihoods_are_those_of_a_loop_in_float64(saved: Path, tokenizer: Tokenizer) -> None:
    model = tinycore.load(saved)
    tested = CheckpointModel(model, tokenizer)
    pairs = [
        ("the cat", " sat on the mat"),
        ("the cat ", "sat"),
        ("", "the dog ran"),
        ("Question: 3 + 4", " = 7"),
        ("Question: 3 + 4", " = 8"),
        ("a red house. ñan", "dú"),
        (TEXT * 2, " yes"),
        ("the", ""),
    ]
    end = tokenizer.end_id
    # what the model would write itself is greedy
    greedy = tested.generate_until(["the cat"], [], 6)[0]
    pairs.append(("the cat", greedy))
    found = tested.loglikelihood(pairs)
    exact = tinycore.load(saved).double()
    flags = []
    for (context, continuation), (nats, best) in zip(pairs, found, strict=True):
        whole = tokenizer.encode(context + continuation)
        before = len(tokenizer.encode(context.rstrip()))
        row = [end, *whole]
        # "dú" only lengthens the last token of its context: that one is scored
        count = max(len(whole) - before, 1) if continuation else 0
        row = row[-(CONTEXT + 1) :]
        expected, flag = by_hand(exact, row, len(row) - count)
        assert math.isclose(nats, expected, abs_tol=1e-4), (context, continuation)
        assert best == flag
        flags.append(best)
    assert found[7] == (0.0, True)
    assert False in flags


def test_neither_batches_nor_padding_nor_order_change_a_score(saved: Path, tokenizer: Tokenizer) -> None:
    model = tinycore.load(saved)
    pairs = [("the cat" * n, " sat on the mat"[: 4 + n]) for n in range(1, 9)] + [("the", one) for one in (" a", " b")]
    together = CheckpointModel(model, tokenizer).loglikelihood(pairs)
    small = CheckpointModel(model, tokenizer, tokens_at_once=60).loglikelihood(pairs[::-1])[::-1]
    alone = [CheckpointModel(model, tokenizer).loglikelihood([pair])[0] for pair in pairs]
    for one, two, three in zip(together, small, alone, strict=True):
        assert one[1] == two[1] == three[1]
        assert math.isclose(one[0], two[0], abs_tol=1e-5)
        assert math.isclose(one[0], three[0], abs_tol=1e-5)


def test_whole_texts_are_scored_once_each_token(saved: Path, tokenizer: Tokenizer) -> None:
    text = TEXT * 2
    tested = CheckpointModel(tinycore.load(saved), tokenizer)
    exact = tinycore.load(saved).double()
    ids = [tokenizer.end_id, *tokenizer.encode(text)]
    assert len(ids) > 2 * CONTEXT
    expected, place = 0.0, 1
    for window in windows(ids, 1, CONTEXT):
        assert list(window.targets) == ids[place : place + len(window.targets)]
        assert len(window.read) <= CONTEXT
        row = [*window.read, window.targets[-1]]
        expected += by_hand(exact, row, len(row) - len(window.targets))[0]
        place += len(window.targets)
    assert place == len(ids)
    assert len(window.read) == CONTEXT  # the last one reaches back
    assert math.isclose(tested.loglikelihood_rolling([text, "the"])[0], expected, abs_tol=1e-4)
    assert tested.tokenizer_id == tokenizer.hash
    pieces = tested.pieces(text)
    assert "".join(pieces) == text
    assert len(pieces) == len(ids) - 1


def test_continuations_are_cut_where_asked_and_fit_the_context(saved: Path, tokenizer: Tokenizer) -> None:
    tested = CheckpointModel(tinycore.load(saved), tokenizer)
    prompts = ["the cat", TEXT * 3, "a red", ""]
    written = tested.generate_until(prompts, [], 12)
    assert written == [tested.generate_until([prompt], [], 12)[0] for prompt in prompts]
    assert all(written)
    stop = written[0][2:4]
    assert tested.generate_until(prompts, [stop], 12)[0] == written[0][: written[0].index(stop)]
    assert len(tested.generate_until([TEXT * 3], [], 1000)[0]) > 0


def test_a_model_that_is_broken_is_said_to_be(saved: Path, tokenizer: Tokenizer) -> None:
    model = tinycore.load(saved)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(BadRequest, match="not finite"):
        CheckpointModel(model, tokenizer).loglikelihood([("the", " cat")])


def test_results_are_kept_and_not_computed_again(saved: Path, call: Call, asked: list[str]) -> None:
    arguments = [saved, "--tasks", "arithmetic,word_problems", "--limit", 6, "--json"]
    status, found, _ = call(*arguments)
    assert status == 0
    assert asked == ["arithmetic", "word_problems"]
    (first,) = found["runs"]
    assert [(row["task"], row["n"], row["skipped"]) for row in first["tasks"]] == [
        ("arithmetic", 6, None),
        ("word_problems", 6, None),
    ]
    assert all(0 <= row["mean"] <= 1 and row["standard_error"] >= 0 for row in first["tasks"])
    folder = saved / "evaluation"
    assert {path.name for path in folder.iterdir()} == {
        "arithmetic.json",
        "word_problems.json",
        "model.json",
        "results.json",
        "report.md",
        "spectra.png",
        "tasks.png",
    }
    assert Results.from_json((folder / "results.json").read_text())["arithmetic"].n == 6
    assert "| arithmetic " in (folder / "report.md").read_text()
    _, again, _ = call(*arguments)
    assert asked == ["arithmetic", "word_problems"]
    assert [row["done_before"] for row in again["runs"][0]["tasks"]] == [True, True]
    call(saved, "--tasks", "arithmetic", "--limit", 5)
    call(saved, "--tasks", "arithmetic", "--limit", 5, "--seed", 1)
    assert asked[2:] == ["arithmetic", "arithmetic"]
    (folder / "arithmetic.json").write_text("{")
    call(saved, "--tasks", "arithmetic", "--limit", 5)
    assert asked[4:] == ["arithmetic"]


def test_other_weights_are_evaluated_anew(saved: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    other = checkpoint(tmp_path / "other", tokenizer, seed=1)
    assert stored.place(saved).sha256 != stored.place(other).sha256
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    other.rename(run / "checkpoints" / "step_00000001")
    (run / "latest").write_text("step_00000001")
    whole, part = stored.place(run), stored.place(run / "checkpoints" / "step_00000001")
    assert whole.sha256 == part.sha256
    assert whole.directory == run / "evaluation"
    assert part.directory == run / "evaluation" / "step_00000001"


def test_a_kill_between_tasks_loses_nothing_that_was_done(
    saved: Path, call: Call, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = scored.evaluate

    def killed(model: Any, task: Any, **settings: Any) -> Any:
        if task.name == "logic_hops":
            raise KeyboardInterrupt
        return counted(model, task, **settings)

    arguments = [saved, "--tasks", "arithmetic,logic_hops", "--limit", 4, "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(scored, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            call(*arguments)
    _, found, _ = call(*arguments)
    assert asked == ["arithmetic", "logic_hops"]
    assert [row["done_before"] for row in found["runs"][0]["tasks"]] == [True, False]


def test_what_cannot_be_asked_is_said_and_is_no_zero(
    saved: Path, call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tinyeval.sources.hub_reachable", lambda: False)
    _, found, _ = call(saved, "--tasks", "lambada,arithmetic", "--limit", 2, "--json")
    skipped = found["runs"][0]["tasks"][0]
    assert skipped["mean"] is None
    assert "cannot be reached" in skipped["skipped"]
    assert not (saved / "evaluation" / "lambada.json").exists()
    assert "lambada: not measured" in (saved / "evaluation" / "report.md").read_text()
    data = tmp_path / "own.jsonl"
    data.write_text(json.dumps({"text": "the cat sat on the mat"}) + "\n")
    _, found, _ = call(saved, "--tasks", "lambada", "--files", f"lambada={data}", "--json")
    assert found["runs"][0]["tasks"][0]["n"] == 1
    monkeypatch.setattr(eval_tasks, "runner", lambda: None)
    _, found, _ = call(saved, "--tasks", "word_problems_program,human_eval", "--limit", 2, "--json")
    assert all("sandbox" in row["skipped"] for row in found["runs"][0]["tasks"])


def test_requests_that_are_refused(saved: Path, tmp_path: Path, call: Call) -> None:
    plain = checkpoint(tmp_path / "plain", tokenizer_of(290, tags=False))
    for arguments, message in (
        ((saved, "--tasks", "arithmetik"), "unknown task 'arithmetik'; did you mean arithmetic"),
        ((saved, "--tasks", "auto,needle"), "or auto alone"),
        ((saved, "--tasks", "needle", "--kinds", "words"), "--kinds is for exercises"),
        ((saved, "--limit", 3, "--kinds", "words"), "--limit belongs to tasks"),
        ((saved, "--tasks", "needle", "--files", "lambada"), "not of the form"),
        ((saved, "--tasks", "needle", "--files", "lambada=x"), "lambada is not among"),
        ((saved, "--tasks", "lambada", "--files", "lambada=/nowhere"), "cannot be read"),
        ((saved, plain, "--tasks", "needle"), "give one run"),
        ((saved, "--compare"), "at least two runs"),
        ((saved, plain, "--compare", "--tasks", "word_problems_program"), "has no token <code>"),
        ((plain, "--tasks", "word_problems_calculator"), "has no token <calc>, so it cannot use the calculator"),
    ):
        with pytest.raises(BadRequest, match=message):
            call(*arguments)
    with pytest.raises(RunError, match="no such directory"):
        call(tmp_path / "none", "--tasks", "needle")
    with pytest.raises(TaskError):
        call(saved, "--tasks", str(tmp_path / "none.yaml"))


def test_runs_are_compared_item_by_item(saved: Path, tokenizer: Tokenizer, tmp_path: Path, call: Call) -> None:
    other = checkpoint(tmp_path / "other", tokenizer_of(290), seed=1)
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"text": f"the cat sat on {n} mats"}) + "\n" for n in range(12)))
    both = (
        saved,
        other,
        "--compare",
        "--tasks",
        "arithmetic,wikitext2",
        "--limit",
        12,
        "--files",
        f"wikitext2={lines}",
    )
    status, found, said = call(*both, "--json")
    assert status == 0
    comparison = found["comparison"]
    assert [(row["run"], row["task"], row["n"]) for row in comparison["rows"]] == [
        ("other", "arithmetic", 12),
        ("other", "wikitext2", 12),
    ]
    assert all(row["verdict"] in ("better", "worse", "not distinguishable") for row in comparison["rows"])
    assert comparison["rows"][0]["verdict"] == "not distinguishable"
    assert comparison["rows"][1]["metric"] == "bits_per_byte"
    assert "tokenizers differ" in comparison["note"]
    assert "tokenizers differ" in said
    page = Path(comparison["page"])
    assert (page.parent / "tasks.png").stat().st_size > 1000
    assert "not distinguishable" in page.read_text()
    arguments = (*both[:4], "wikitext2", *both[5:], "--metric", "perplexity")
    with pytest.raises(Incomparable, match=r"different tokenizers .* compare bits_per_byte instead"):
        call(*arguments)
    _, same, _ = call(saved, saved, "--compare", "--tasks", "arithmetic", "--limit", 12, "--json")
    assert [row["difference"] for row in same["comparison"]["rows"]] == [0.0]


def test_needles_are_drawn_where_they_were_looked_for(saved: Path, call: Call) -> None:
    call(saved, "--tasks", "needle", "--limit", 20)
    assert (saved / "evaluation" / "needle.png").stat().st_size > 1000


def test_auto_takes_what_fits_the_time_and_what_is_stored(
    tokenizer: Tokenizer, tmp_path: Path, call: Call, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = checkpoint(tmp_path / "longer", tokenizer, context=100)
    monkeypatch.setattr(auto, "seconds_each", lambda model, task, items: 0.9 if task.name == "arithmetic" else 99.0)
    monkeypatch.setattr(
        auto, "candidates", lambda *_: [tasks.load(name) for name in ("arithmetic", "needle", "logic_hops")]
    )
    _, found, _ = call(saved, "--tasks", "auto", "--json")
    rows = {row["task"]: row for row in found["runs"][0]["tasks"]}
    assert rows["arithmetic"]["n"] == 20
    assert "context of 100 tokens" in rows["needle"]["skipped"]
    assert "would take" in rows["logic_hops"]["skipped"]
    assert asked == ["arithmetic"]
    # a machine that is faster today changes nothing
    monkeypatch.setattr(auto, "seconds_each", lambda model, task, items: 0.001 if task.name == "arithmetic" else 99.0)
    _, found, _ = call(saved, "--tasks", "auto", "--json")
    assert found["runs"][0]["tasks"][0]["n"] == 20
    assert asked == ["arithmetic"]


def test_speed_is_measured_on_the_items_themselves() -> None:
    task = tasks.load("arithmetic")
    found = auto.choose(RandomModel(), task, 0, {}, 60.0, 512)
    assert found.reason is None
    assert found.limit in (None, *auto.LIMITS)
    lambada = from_dict({**HUB, "name": "own"})
    assert auto.choose(RandomModel(), lambada, 0, {}, 60.0, 512).reason is not None


HUB: dict[str, Any] = {
    "version": 1,
    "description": "x",
    "source": "x",
    "licence": "x",
    "dataset": {"kind": "file", "format": "items"},
    "scoring": "greedy_answer",
    "prompt": "{prompt}",
    "metric": "exact",
    "direction": "up",
}


def test_questions_of_word_problems_are_of_the_test_side() -> None:
    from tinydata import split_of

    for form in ("hand", "calculator"):
        made = list(eval_tasks.word_problems(seed=3, items=8, form=form))
        assert len(made) == 8
        questions = [one.prompt.split("\n")[0].removeprefix("Question: ") for one in made]
        assert all(split_of(question, {"test": 0.1}) == "test" for question in questions)
    assert eval_tasks.load("word_problems_calculator").identity != eval_tasks.load("word_problems").identity
    assert {one.meta["hops"] for one in eval_tasks.logic_problems(seed=0, items=40)} == {1, 2, 3, 4}
    assert isinstance(Result.from_dict, Callable)


def test_what_a_task_leaves_goes_to_those_after_it() -> None:
    assert auto.share_of(0.0, 8) == auto.SECONDS / 8
    assert auto.share_of(20.0, 1) == auto.SECONDS - 20
    assert auto.share_of(auto.SECONDS + 1, 3) == 0.0
