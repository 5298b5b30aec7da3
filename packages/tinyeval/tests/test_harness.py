"""The same items, scored by lm-eval and by us: equal log-likelihoods and accuracies, both ways. Skipped without lm-eval."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tinyeval import ByteNgram, RandomModel, Scripted, Unavailable, evaluate, harness, tasks

TEXTS = [
    "The trophy does not fit into the suitcase because it is too big.",
    "Plants need light and water to grow. The cat sleeps on the mat near the door.",
    "Question: What do plants need? Answer: light and water. He opened the door and went out.",
]
ROWS: dict[str, list[dict[str, Any]]] = {
    "arc_easy": [
        {
            "id": f"q{n}",
            "question": question,
            "choices": {"text": texts, "label": labels},
            "answerKey": key,
        }
        for n, (question, texts, labels, key) in enumerate(
            [
                ("What do plants need?", ["light", "a mat", "the door", "a trophy"], list("ABCD"), "A"),
                ("Where does a cat sleep?", ["in water", "on the mat", "on light"], list("123"), "2"),
                ("What is big?", ["it", "the suitcase", "caf\u00e9", "he"], list("ABCD"), "B"),
            ]
        )
    ],
    "blimp": [
        {"sentence_good": "The cat sleeps.", "sentence_bad": "The cat sleep.", "UID": "a", "pair_id": 0},
        {"sentence_good": "He went out.", "sentence_bad": "He goed out.", "UID": "a", "pair_id": 1},
    ],
    "hellaswag": [
        {
            "ind": n,
            "activity_label": "Opening a door",
            "ctx_a": "A man stands near the door. [header] How to open it [title] Find the key.",
            "ctx_b": "the man",
            "endings": ["opened the door and went out.", "eats  the door.", "[step] sleeps on the light.", "is water."],
            "label": str(n),
        }
        for n in range(3)
    ],
    "piqa": [
        {"goal": "to let a cat out", "sol1": "Open the door.", "sol2": "Close the suitcase.", "label": 0},
        {"goal": "to grow plants", "sol1": "Give them the mat.", "sol2": "Give them water.", "label": 1},
    ],
    "winogrande": [
        {
            "sentence": "The trophy does not fit into the suitcase because the _ is too big.",
            "option1": "trophy",
            "option2": "suitcase",
            "answer": "1",
        }
    ],
    "lambada": [{"text": "He opened the door and went out"}, {"text": "The cat sleeps on the mat near the door"}],
}
THEIRS = {"lambada": "lambada_openai", "blimp": "transitive"}


def theirs(task: str, file: Path, model: object) -> list[dict[str, Any]]:
    """lm-eval's samples of its own task, its data replaced by `file`."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.tasks import TaskManager

    name = THEIRS.get(task, task)
    written = Path(lm_eval.__file__).parent / "tasks" / task.partition("_")[0]
    found = (
        next(path for path in written.rglob("*.yaml") if f"task: {name}\n" in path.read_text())
        if task != "blimp"
        else None
    )
    config = f"include: {found or written / '_template_yaml'}\ntask: ours_{task}\ntag: []\n"
    config += f"dataset_path: json\ndataset_name: null\ndataset_kwargs: {{data_files: {{test: {file}}}}}\n"
    config += "training_split: null\nvalidation_split: null\ntest_split: test\n"
    (file.parent / f"ours_{task}.yaml").write_text(config)
    manager = TaskManager(include_path=str(file.parent), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model=harness.to_lm_eval(model), tasks=[f"ours_{task}"], task_manager=manager, bootstrap_iters=0, num_fewshot=0
    )
    return sorted(results["samples"][f"ours_{task}"], key=lambda sample: sample["doc_id"])


@pytest.mark.parametrize("task", ROWS)
def test_the_same_items_score_the_same(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    file = tmp_path / f"{task}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[task]))
    model = ByteNgram.train(TEXTS)
    ours = evaluate(model, tasks.load(task), files={task: file})[task]
    samples = theirs(task, file, model)
    assert len(ours.records) == len(samples) == len(ROWS[task])
    for record, sample in zip(ours.records, samples, strict=True):
        their_nats = [float(response[0]) for response in sample["filtered_resps"]]
        assert record.nats == pytest.approx(their_nats, abs=1e-4)
        assert record.scores["acc"] == sample["acc"]
        if "acc_norm" in sample and all(choice.isascii() for choice in str(sample["doc"])):
            assert record.scores["acc_norm"] == sample["acc_norm"]


def test_there_and_back_is_the_same_model() -> None:
    pytest.importorskip("lm_eval")
    model = ByteNgram.train(TEXTS)
    again = harness.from_lm_eval(harness.to_lm_eval(model))
    pairs = [("The cat", " sleeps"), ("", "He")]
    assert again.loglikelihood(pairs) == model.loglikelihood(pairs)
    assert again.loglikelihood_rolling(TEXTS) == model.loglikelihood_rolling(TEXTS)
    assert again.generate_until(["The cat", "He"], ["."], 9) == model.generate_until(["The cat", "He"], ["."], 9)


def test_requests_with_other_settings_stay_in_order() -> None:
    class Asked:
        def __init__(self) -> None:
            self.calls: list[tuple[list[str], tuple[str, ...], int]] = []

        def generate_until(self, prompts: list[str], until: tuple[str, ...], max_tokens: int) -> list[str]:
            self.calls.append((list(prompts), tuple(until), max_tokens))
            return [prompt.upper() for prompt in prompts]

    model = Asked()
    asked = [
        ("a", {"until": ["\n"]}),
        ("b", {"until": "x", "max_gen_toks": 5}),
        ("c", {"until": ["\n"], "temperature": 0.7}),
    ]
    assert harness._generated(model, asked) == ["A", "B", "C"]
    assert model.calls == [(["a", "c"], ("\n",), 256), (["b"], ("x",), 5)]
    with pytest.raises(ValueError, match="asks for sampling"):
        harness._generated(model, [("a", {"do_sample": True, "temperature": 0.7})])


@pytest.mark.parametrize("use", [harness.to_lm_eval, harness.from_lm_eval])
def test_without_the_library_the_remedy_is_one_line(use: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(Unavailable, match="pip install lm-eval"):
        use(RandomModel())


def test_the_282_questions_in_the_wheel() -> None:
    pytest.importorskip("lm_eval")
    right = Scripted(lambda prompt: " A")
    found = evaluate(right, tasks.load("mmlu_mini"))["mmlu_mini"]
    assert found.skipped is None
    assert found.n == 282
    subjects = found.grouped("subject")
    assert len(subjects) == 57
    assert {count for _, count in subjects.values()} <= {4, 5}
    assert found.scores["acc"].mean == sum(record.scores["acc"] for record in found.records) / 282
