"""Claim: what a recipe says about its data comes out so: stages, temperature, duplicates, verified text, curricula, reach."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import tinycore
from apps.common import data, loaders, logs, practice, recipes, strict_yaml, synthetic_text, tasks
from apps.common.console import Console
from apps.common.data_config import TextData
from apps.common.errors import BadRequest
from apps.common.problems import PreparedProblems, Written
from apps.common.recipe import Recipe
from apps.common.synthetic_check import needle_fault, notes_fault, scratchpad_fault
from apps.common.synthetic_text import GENERATORS, REFUSED, SyntheticText
from apps.prepare import solved
from tinydata import CurriculumLoader, MixedLoader
from tinyreason import Completion

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
QUIET = Console(json=True)
STAGES = [
    {"until": 0.5, "weights": {"first": 3, "second": 1}},
    {"until": 0.75, "weights": {"second": 1}},
    {"until": 1.0, "weights": {"first": 1, "second": 1, "third": 2}},
]


def recipe_of(folder: Path, **changes: Any) -> Recipe:
    """Three sources of synthetic text, first, second and third, of different sizes."""
    sources = [
        {"kind": "synthetic", "generator": generator, "name": name, "documents": documents}
        for name, generator, documents in (
            ("first", "facts", 400),
            ("second", "arithmetic", 200),
            ("third", "notes", 100),
        )
    ]
    written = recipes.read("brandon-226k")
    written["model"] |= {"vocab_size": None}
    values = {
        "sources": sources,
        "tokenizer": {"vocab_size": 350},
        "sequence_length": 64,
        "cache": str(folder / "cache"),
    }
    return recipes.from_dict(
        {
            **written,
            "data": {**values, "validation": 0.05, "test": 0.05, **changes},
            "train": {**written["train"], "steps": 100, "batch_size": 4},
        }
    )


def test_realised_counts_of_stages_are_their_integrals_at_every_border(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, stages=STAGES)
    prepared = data.prepare(recipe, QUIET)
    loader = loaders.text(recipe, prepared, 4)
    assert isinstance(loader, MixedLoader)
    batches = iter(loader)
    given: list[dict[str, int]] = [dict.fromkeys(("first", "second", "third"), 0)]
    for _ in range(100):
        next(batches)
        given.append(dict(loader.tokens))
    for before, after, stage in ((0, 50, STAGES[0]), (50, 75, STAGES[1]), (75, 100, STAGES[2])):
        drawn = {name: given[after][name] - given[before][name] for name in given[0]}
        total = sum(drawn.values())
        for name, count in drawn.items():
            expected = stage["weights"].get(name, 0) / sum(stage["weights"].values()) * total
            assert count == pytest.approx(expected, abs=3 * 64), (name, stage)  # within a few rows
    assert given[75]["third"] == 0


def test_stages_are_the_same_mixture_as_steps_in_piecewise_weights(tmp_path: Path) -> None:
    written = {
        "first": [[0, 0.75], [0.5, 0.75], [0.5, 0], [0.75, 0], [0.75, 0.25], [1, 0.25]],
        "second": [[0, 0.25], [0.5, 0.25], [0.5, 1], [0.75, 1], [0.75, 0.25], [1, 0.25]],
        "third": [[0, 0], [0.5, 0], [0.5, 0], [0.75, 0], [0.75, 0.5], [1, 0.5]],
    }
    mixture = {name: {"kind": "piecewise", "points": points} for name, points in written.items()}
    one, other = recipe_of(tmp_path, stages=STAGES).data, recipe_of(tmp_path, mixture=mixture).data
    for progress in (0.0, 0.2, 0.4999, 0.5, 0.6, 0.75, 0.9, 1.0):
        assert one.shares({}).shares(progress) == pytest.approx(other.shares({}).shares(progress)), progress
    assert data.key_of(one) == data.key_of(other)


def test_a_temperature_mixes_by_the_sizes_that_there_are(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, temperature=2.0)
    prepared = data.prepare(recipe, QUIET)
    roots = {name: shards.tokens**0.5 for name, shards in prepared.mixed.items()}
    loader = loaders.text(recipe, prepared, 4)
    assert isinstance(loader, MixedLoader)
    batches = iter(loader)
    for _ in range(100):
        next(batches)
    total = sum(loader.tokens.values())
    for name, root in roots.items():
        assert loader.tokens[name] == pytest.approx(root / sum(roots.values()) * total, abs=2 * 64)
    with pytest.raises(tinycore.ConfigError, match=r"data\.temperature: 0\.0 is not above 0"):
        recipe_of(tmp_path, temperature=0.0)


def test_duplicates_are_left_out_on_request_and_only_then_is_the_key_another(tmp_path: Path) -> None:
    texts = [f"Text {index}: {'la ' * (index % 5)}{index}" for index in range(200)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, *texts[:30], texts[3].upper()]))
    source = {"kind": "files", "path": str(file)}
    plain, unique = recipe_of(tmp_path, sources=[source]), recipe_of(tmp_path, sources=[source], deduplicate=True)
    first, second = data.prepare(plain, QUIET), data.prepare(unique, QUIET)
    assert first.key != second.key
    assert sum(split["documents"] for split in first.manifest["splits"].values()) == 231
    assert sum(split["documents"] for split in second.manifest["splits"].values()) == 200
    assert second.manifest["duplicates"] == {str(file): 31}
    # what determined the key before these settings existed still does, and nothing else
    wanted = [1, first.manifest["sources"], {"kind": "train", "vocab_size": 350}, 0.05, 0.05]
    assert first.key == hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]


def test_documents_like_evaluation_texts_are_left_out_and_counted(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(4000)]
    texts = [" ".join(words[20 * number : 20 * number + 20]) for number in range(200)]
    file, tests = tmp_path / "texts.jsonl", tmp_path / "tests.jsonl"
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    # 13 words of text 3, all of text 7 in other letters, and 12 words of text 9, which are one too few
    asked = [" ".join(texts[3].split()[4:17]), texts[7].upper(), f"{' '.join(texts[9].split()[:12])} and more"]
    tests.write_text("".join(json.dumps({"text": text}) + "\n" for text in asked))
    source = {"kind": "files", "path": str(file)}
    plain = recipe_of(tmp_path, sources=[source])
    clean = recipe_of(tmp_path, sources=[source], decontaminate=str(tests))
    first, second = data.prepare(plain, QUIET), data.prepare(clean, QUIET)
    assert first.key != second.key
    assert sum(split["documents"] for split in first.manifest["splits"].values()) == 200
    assert sum(split["documents"] for split in second.manifest["splits"].values()) == 198
    assert second.manifest["skipped"] == {str(file): {data.CONTAMINATED: 2}}
    tests.write_text(json.dumps({"text": texts[9]}) + "\n")  # other texts, other data
    assert isinstance(clean.data, TextData)
    assert data.key_of(clean.data) != second.key
    tests.write_text(json.dumps({"text": "too short"}) + "\n")
    with pytest.raises(BadRequest, match=r"data\.decontaminate: .* no text that is long enough"):
        data.prepare(clean, QUIET)


def test_a_dataset_is_named_by_the_catalog(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, sources=[{"kind": "catalog", "name": "orca-math", "revision": "abc", "documents": 7}])
    assert isinstance(recipe.data, TextData)
    described = data.source_of(recipe.data.sources[0]).description()
    assert (described["name"], described["licence"]) == ("microsoft/orca-math-word-problems-200k", "MIT")
    assert (described["column"], described["revision"]) == (["question", "answer"], "abc")
    fewer = recipe_of(tmp_path, sources=[{"kind": "catalog", "name": "orca-math", "revision": "abc", "documents": 6}])
    assert isinstance(fewer.data, TextData)
    assert data.key_of(fewer.data) != data.key_of(recipe.data)
    with pytest.raises(tinycore.ConfigError, match=r"name: unknown dataset 'orca_math'; did you mean 'orca-math'\?"):
        recipe_of(tmp_path, sources=[{"kind": "catalog", "name": "orca_math"}])


@pytest.mark.parametrize("generator", GENERATORS)
def test_every_generator_makes_as_many_documents_as_asked_and_none_is_refused(generator: str) -> None:
    made = GENERATORS[generator]
    for language in ("english", "spanish")[: 1 + made.spanish]:
        source = SyntheticText(generator, 150, 3, language, made.levels)
        documents = list(source.documents())
        assert len({document.text for document in documents}) == len(documents) == 150
        assert REFUSED not in source.skipped
        assert {document.source for document in documents} == {generator}
        assert all(document.allow_special == made.tags for document in documents)
        again = SyntheticText(generator, 150, 3, language, made.levels)
        assert list(again.documents()) == documents
        assert again.description() == source.description()
        other = SyntheticText(generator, 150, 4, language, made.levels)
        assert other.description()["first"] != source.description()["first"]


@pytest.mark.parametrize(
    ("generator", "fault"), [("scratchpads", scratchpad_fault), ("notes", notes_fault), ("needle", needle_fault)]
)
def test_a_changed_digit_or_word_is_refused(generator: str, fault: Callable[[str], str | None]) -> None:
    texts = [
        document.text
        for document in SyntheticText(generator, 30, 0, "english", GENERATORS[generator].levels).documents()
    ]
    changed = 0
    for text in texts:
        assert fault(text) is None
        lines = text.rstrip("\n").split("\n")
        places = [found.start() for found in re.finditer(r"\d", text)]
        if generator == "notes":
            places = []
            for at, line in enumerate(lines[:-2]):  # a note that tells of another place or thing
                if line.startswith("<note>"):
                    words = line.split(" ")
                    words[1] = "moon"
                    damaged = "\n".join([*lines[:at], " ".join(words), *lines[at + 1 :]])
                    assert fault(damaged) is not None, damaged
                    changed += 1
            assert fault(text[: text.rindex("\n") + 1] + "moon") is not None
        if generator == "needle":  # of the answer, and of the needle that it is the answer to
            places = [place for place in places if place > text.rindex("\n")]
        for place in places:
            damaged = f"{text[:place]}{(int(text[place]) + 1) % 10}{text[place + 1 :]}"
            assert fault(damaged) is not None, damaged
            changed += 1
        assert fault(text[:-2]) is not None
    assert changed > 100
    assert fault("") is not None


def test_a_document_that_its_checker_refuses_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = GENERATORS["facts"]

    def spoilt(*arguments: Any) -> Any:
        for number, (text, fault) in enumerate(made.draw(*arguments)):
            yield text, "spoilt" if number % 10 == 3 else fault

    table = {**GENERATORS, "facts": dataclasses.replace(made, draw=spoilt)}
    monkeypatch.setattr(synthetic_text, "GENERATORS", table)
    source = SyntheticText("facts", 100, 0, "english", (1, 3))
    assert len(list(source.documents())) == 90
    assert source.skipped == {REFUSED: 10}


def test_a_run_in_stages_tells_its_mixture_in_its_log_and_forks_at_a_border(
    sessions: Sessions, tiny_recipe: Path, tmp_path: Path
) -> None:
    mapping = strict_yaml.read(tiny_recipe)
    sources = recipes.to_dict(recipe_of(tmp_path))["data"]["sources"]
    mapping["data"] |= {"sources": sources, "stages": STAGES, "cache": str(tmp_path / "cache"), "validation": 0.05}
    mapping["train"] |= {"steps": 16, "log_every": 1, "save_every": 4}
    file = tmp_path / "stages.yaml"
    file.write_text(strict_yaml.dump(mapping))
    run, fork = tmp_path / "runs" / "whole", tmp_path / "runs" / "fork"
    whole, stopped = sessions(
        [
            {"argv": ["--recipe", str(file), "--out", str(run)]},
            {"argv": ["--recipe", str(file), "--out", str(fork)], "hurt": {"rank": 0, "step": 8, "signal": 15}},
        ]
    )
    assert (whole.codes, stopped.codes) == ([0], [3]), whole.err
    at = [line for line in logs.read(run / "metrics.jsonl") if "loss" in line]
    for first, last, stage in ((0, 8, STAGES[0]), (8, 12, STAGES[1]), (12, 16, STAGES[2])):
        drawn = Counter({name: at[last - 1][f"mixture/{name}"] for name in ("first", "second", "third")})
        if first:
            drawn.subtract({name: at[first - 1][f"mixture/{name}"] for name in drawn})
        for name, count in drawn.items():
            share = stage["weights"].get(name, 0) / sum(stage["weights"].values())
            assert count == pytest.approx(share * drawn.total(), abs=3 * 64)
    only = json.dumps([{"until": 1.0, "weights": {"first": 0, "second": 0, "third": 1}}])
    (forked,) = sessions([{"argv": ["--resume", str(fork), "--data.stages", only, "--allow-changes"]}])
    assert forked.codes == [0], forked.err
    lines = [line for line in logs.read(fork / "metrics.jsonl") if "loss" in line]
    assert lines[-1]["mixture/first"] == lines[6]["mixture/first"]
    assert lines[-1]["mixture/third"] > lines[6]["mixture/third"] == 0


def practised(tmp_path: Path, curriculum: dict[str, Any], **changes: Any) -> Recipe:
    written = recipes.read("curriculum-1m")
    written["data"] |= {"problems": 800, "exact": 0, "curriculum": curriculum, **changes}
    written["train"] |= {"steps": 60, "batch_size": 4}
    return recipes.from_dict(written)


BY_STEPS = {
    "by": "steps",
    "replay": 0.25,
    "stages": [
        {"until": 0.25, "depth": [1, 1], "forms": ["hand", "calculator"]},
        {"until": 0.5, "depth": [2, 2], "forms": ["hand", "calculator"]},
        {"until": 1.0, "forms": ["program"]},
    ],
}


def test_a_curriculum_draws_its_stages_in_order_with_replays_and_resumes_exactly(tmp_path: Path) -> None:
    recipe = practised(tmp_path, BY_STEPS)
    prepared = tasks.prepare(recipe, QUIET)
    assert isinstance(prepared, PreparedProblems)
    loader = loaders.problems(recipe, prepared, 4)
    assert isinstance(loader, CurriculumLoader)
    decode = prepared.tokenizer.decode

    def kinds(batch: Any) -> list[str]:
        """Of each row: how its problems are solved and of how many steps they are, read from their text."""
        found = []
        for tokens, documents in zip(batch.tokens, batch.documents, strict=True):
            texts = [decode(tokens[documents == number].tolist()) for number in range(documents.max() + 1)]
            program = {"By program:" in text for text in texts}
            steps = {len(re.findall(r"=\d|<calc>|^[a-h] = ", text.split("\nBy ")[1], re.MULTILINE)) for text in texts}
            assert len(program) == 1  # problems of two levels never share a row
            found.append("program" if program.pop() else f"{steps.pop()} steps" if len(steps) == 1 else "mixed")
        return found

    batches = iter(loader)
    rows = [kind for _ in range(60) for kind in kinds(next(batches))]
    first, second, third = Counter(rows[:60]), Counter(rows[60:120]), Counter(rows[120:240])
    assert set(first) == {"1 steps"}
    assert second == {"2 steps": 45, "1 steps": 15}
    assert third == {"program": 90, "2 steps": 15, "1 steps": 15}

    half = loaders.problems(recipe, prepared, 4)
    go = iter(half)
    for _ in range(31):
        next(go)
    state = half.state_dict()
    resumed = loaders.problems(recipe, prepared, 2, rank=1, world=2)  # another number of processes, the same rows
    resumed.load_state_dict(json.loads(json.dumps(state)))
    assert isinstance(resumed, CurriculumLoader)
    assert resumed.stage == 2
    assert kinds(next(iter(resumed))) == rows[31 * 4 + 2 : 32 * 4]

    counted = loader.depths(prepared.depths)
    assert [set(stage) for stage in counted[:2]] == [{1.0}, {1.0, 2.0}]
    problems = 0
    for batch, _ in zip(loaders.problems(recipe, prepared, 4), range(60), strict=False):
        problems += int((batch.documents.max(axis=1) + 1).sum())
    assert sum(sum(stage.values()) for stage in counted) == problems


def test_a_curriculum_by_length_and_by_what_a_run_solves(tmp_path: Path) -> None:
    stages = [{"until": 0.5, "depth": [0, 40]}, {"until": 1.0}]
    recipe = practised(tmp_path, {"by": "length", "stages": stages})
    prepared = tasks.prepare(recipe, QUIET)
    assert isinstance(prepared, PreparedProblems)
    easy, hard = prepared.train[: prepared.stages[0]], prepared.train[prepared.stages[0] :]
    assert max(len(row.ids) - row.prompt for row in easy) <= 40 < min(len(row.ids) - row.prompt for row in hard)

    of = solved.asked(recipe.data, 120)
    file = tmp_path / "measured.jsonl"
    rates = {problem.prompt: (index % 5) / 4 for index, problem in enumerate(of)}
    file.write_text("".join(json.dumps({"prompt": prompt, "pass_rate": rate}) + "\n" for prompt, rate in rates.items()))
    stages = [{"until": 0.5, "depth": [0, 0.5]}, {"until": 1.0, "depth": [0.5, 1]}]
    recipe = practised(tmp_path, {"by": "difficulty", "measured": str(file), "stages": stages})
    prepared = tasks.prepare(recipe, QUIET)
    assert isinstance(prepared, PreparedProblems)
    assert prepared.stages == (sum(rate >= 0.5 for rate in rates.values()), sum(rate < 0.5 for rate in rates.values()))
    assert sorted(prepared.depths) == sorted(1 - rate for rate in rates.values())


def test_what_a_curriculum_cannot_be_is_one_line(tmp_path: Path) -> None:
    def loaded(curriculum: dict[str, Any], **changes: Any) -> None:
        recipe = practised(tmp_path, curriculum, **changes)
        loaders.problems(recipe, tasks.prepare(recipe, QUIET), 4)  # ty: ignore[invalid-argument-type]

    def refused(curriculum: dict[str, Any], **changes: Any) -> str:
        with pytest.raises((tinycore.ConfigError, BadRequest)) as caught:
            loaded(curriculum, **changes)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    end = [{"until": 1.0}]
    assert "data.curriculum.stages: end at 0.5; these must grow, up to 1" in refused({"stages": [{"until": 0.5}]})
    assert "data.curriculum.replay: 1.0 is not at least 0" in refused({"stages": end, "replay": 1.0})
    assert "measured: is what difficulty is measured by" in refused({"stages": end, "by": "difficulty"})
    assert "no such file" in refused({"stages": end, "by": "difficulty", "measured": str(tmp_path / "none")})
    assert "replay: documents have no place" in refused({"stages": end}, replay=0.1)
    assert "did you mean 'calculator'" in refused({"stages": [{"until": 1.0, "forms": ["calculators"]}]})
    assert "stages.0: takes none of the problems" in refused({"stages": [{"until": 1.0, "depth": [9, 9]}]})
    short = [{"until": 0.001, "depth": [1, 1]}, {"until": 1.0}]
    assert "stage 0 has no example among 240" in refused({"stages": short})


class Sometimes:
    """Solves a problem in as many of 4 answers as its answer is long."""

    def __init__(self, of: Sequence[Written]) -> None:
        self.answers = {problem.prompt: problem.answer for problem in of}
        self.asked: list[str] = []

    def generate(self, prompts: list[str], *, n: int, **_: Any) -> list[list[Completion]]:
        self.asked += prompts
        right = {prompt: min(len(self.answers[prompt]), n) for prompt in prompts}
        return [
            [
                Completion(f"Answer: {self.answers[prompt]}" if number < right[prompt] else "Answer: -1", 3, "stop")
                for number in range(n)
            ]
            for prompt in prompts
        ]


def test_what_a_run_solves_sometimes_is_kept_and_measuring_goes_on_where_it_stopped(tmp_path: Path) -> None:
    of = solved.asked(practised(tmp_path, BY_STEPS).data, 60)
    model, file = Sometimes(of), tmp_path / solved.MEASURED
    settings = {"run": "runs/x", "seed": 0}
    rates = solved.measure(file, settings, of, model, 4, 100, QUIET)
    assert rates == {problem.prompt: min(len(problem.answer), 4) / 4 for problem in of}
    assert practice.pass_rates(file) == rates
    content = file.read_bytes()
    lines = content.splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:21]) + lines[21][:17])  # killed in the middle of a line
    again = Sometimes(of)
    assert solved.measure(file, settings, of, again, 4, 100, QUIET) == rates
    assert again.asked == [problem.prompt for problem in of[20:]]
    assert file.read_bytes() == content
    kept = solved.keep(tmp_path / solved.KEPT, of, rates, 0.3, 0.6)
    lines = [json.loads(line) for line in (tmp_path / solved.KEPT).read_text().splitlines()]
    assert [line["prompt"] for line in lines] == [problem.prompt for problem in of if len(problem.answer) == 2]
    assert len(lines) == kept > 0
    with pytest.raises(BadRequest, match="measured with another run"):
        solved.measure(file, {"run": "runs/y", "seed": 0}, of, model, 4, 100, QUIET)
    assert solved.bounds("0.2-0.8") == (0.2, 0.8)
    for wrong in ("0.8-0.2", "2-3", "x", "0.2"):
        with pytest.raises(BadRequest, match="--keep"):
            solved.bounds(wrong)


def test_sources_that_cannot_be_are_one_line(tmp_path: Path) -> None:
    def source(**values: Any) -> str:
        with pytest.raises(tinycore.ConfigError) as caught:
            recipe_of(tmp_path, sources=[{"kind": "synthetic", **values}])
        return str(caught.value)

    assert "generator: missing" in source()
    assert "unknown value 'poems'" in source(generator="poems")
    assert "notes are written in english alone" in source(generator="notes", language="spanish")
    assert "levels: [4, 2] calculations of word_problems are not within 1 to 4" in source(
        generator="word_problems", levels=[4, 2]
    )
    assert "documents: 0 is not positive" in source(generator="facts", documents=0)
    assert "name: is empty" in source(generator="facts", name="")
