"""`apps/evaluate --harness`: our model in lm-eval's evaluator, on a task from a local file; the same items by our own rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from apps.common.errors import BadRequest
from apps.evaluate import lm_harness
from tests.test_evaluate_tasks import Call, call, saved, tokenizer  # noqa: F401  # fixtures

TASK = """task: ours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "Question: {{{{prompt}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: right
metric_list:
  - {{metric: acc}}
  - {{metric: acc_norm}}
"""
MINE = """name: ours
version: 1
description: the same by our rules
source: here
licence: none
dataset: {{kind: file, format: items, path: {data}}}
scoring: multiple_choice
prompt: "Question: {{prompt}}\\nAnswer:"
metric: acc
direction: up
"""


def test_a_local_task_scores_the_same_by_both(
    saved: Path,  # noqa: F811
    call: Call,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("lm_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "items.jsonl"
    rows = [
        {"prompt": f"{n} + 4", "choices": ["a red house", f"{n + 4}", "the mat"], "right": n % 3} for n in range(12)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "ours.yaml").write_text(TASK.format(data=data))
    (tmp_path / "mine.yaml").write_text(MINE.format(data=data))
    status, found, said = call(saved, "--harness", folder / "ours.yaml", "--json")
    assert status == 0
    scores = found["results"]["ours"]
    assert found["n"]["ours"]["effective"] == 12
    assert scores["acc_stderr,none"] > 0
    _, own, _ = call(saved, "--tasks", tmp_path / "mine.yaml", "--json")
    (row,) = own["runs"][0]["tasks"]
    assert row["mean"] == pytest.approx(scores["acc,none"], abs=1e-4)
    assert row["standard_error"] == pytest.approx(scores["acc_stderr,none"], abs=1e-4)
    assert json.loads((saved / "evaluation" / "harness.json").read_text())["sha256"] == found["sha256"]
    assert "| ours |" in said
    # their own tasks have their data on the hub
    monkeypatch.setattr(lm_harness, "hub_reachable", lambda: False)
    with pytest.raises(BadRequest, match="the data of arc_easy is on the Hugging Face hub, which cannot be reached"):
        call(saved, "--harness", "arc_easy,blimp")
    with pytest.raises(BadRequest, match="no task 'arc_esy'; did you mean arc_easy"):
        call(saved, "--harness", "arc_esy")
    data.unlink()
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "empty"))
    with pytest.raises(BadRequest, match="lm-eval cannot ask ours: ") as refused:
        call(saved, "--harness", folder / "ours.yaml")
    assert "\n" not in str(refused.value)


def test_without_the_library_and_other_bad_requests(
    saved: Path,  # noqa: F811
    call: Call,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for arguments, words in (
        (("--harness", "arc_easy", "--tasks", "needle"), "--tasks: --harness asks tasks of lm-eval"),
        (("--harness", ","), "name tasks of lm-eval"),
        (("--harness", tmp_path / "none.yaml"), "there is no such file"),
    ):
        with pytest.raises(BadRequest, match=words):
            call(saved, *arguments)
    (tmp_path / "odd.yaml").write_text("group: x\n")
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(BadRequest, match="pip install lm-eval"):
        call(saved, "--harness", "arc_easy")
