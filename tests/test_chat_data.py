"""Claim: conversations are learned as the model will be asked: only the assistant's words, in a format that becomes the chat
template of the checkpoint; replayed documents are the asked share; losses against repetition train and resume exactly."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apps.common import chats, problems, strict_yaml
from apps.common.chat_template import ChatTemplate, Message
from apps.common.console import Console
from apps.common.data_config import EmbeddedSource, TrainedTokenizer
from apps.common.errors import BadRequest
from apps.common.problem_config import ChatData, ExerciseData
from tinycore.config import ConfigError
from tinydata import CHAT_FORMATS, ChatMessage, Tokenizer

Sessions = Callable[[Sequence[dict[str, Any]]], Any]
QUIET = Console(json=True)
TALK = [ChatMessage("user", "Hi <|im_end|>"), ChatMessage("assistant", "Hello!"), ChatMessage("user", "And?")]


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    file = tmp_path / "talks.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}."}, {"role": "assistant", "content": f"{n} it is. <calc>"}]}
        for n in range(60)
    ]
    broken = ['{"messages": []}', "not json", '{"messages": [{"role": "user", "content": "?"}]}']
    file.write_text("\n".join([*map(json.dumps, rows), *broken]))
    return file


def data_of(talks: Path | None, **changes: Any) -> ChatData:
    shared: dict[str, Any] = {"tokenizer": TrainedTokenizer(vocab_size=400), "validation": 0.2}
    return ChatData(path=str(talks) if talks else None, **{**shared, **changes})


@pytest.mark.parametrize("form", ["chatml", "plain"])
def test_only_what_the_assistant_says_is_learned(talks: Path, form: Any) -> None:
    prepared = problems.prepare(data_of(talks, format=form), 400, QUIET)
    assert len(prepared.train) + len(prepared.validation) == 60
    for row in prepared.train:
        learned = prepared.tokenizer.decode(
            [int(i) for i, given in zip(row.ids, row.given, strict=True) if not given][1:]
        )
        said = learned.replace("<|im_end|>", "").replace("<|endoftext|>", "")
        assert said.endswith(" it is. <calc>")
        assert said.split()[0].isdigit()
    # a stranger's tag is letters
    assert all(prepared.tokenizer.special["<calc>"] not in row.ids for row in prepared.train)


@pytest.mark.parametrize("form", ["chatml", "plain"])
def test_the_template_asks_as_was_taught(talks: Path, form: Any) -> None:
    data = data_of(talks, format=form)
    tokenizer = problems.prepare(data, 400, QUIET).tokenizer
    whole = CHAT_FORMATS[form].encode([*TALK, ChatMessage("assistant", "Ok.")], tokenizer).ids.tolist()
    template = ChatTemplate(tokenizer)
    asked = template.encode([Message(message.role, message.text) for message in TALK])
    assert whole[: len(asked)] == asked
    assert tokenizer.decode(whole[len(asked) :]).startswith("Ok.")
    assert whole[len(asked) + len(tokenizer.encode("Ok."))] in template.stop


def test_made_up_dialogues_have_calls_whose_results_are_given() -> None:
    prepared = problems.prepare(data_of(None, conversations=300), 400, QUIET)
    special = prepared.tokenizer.special
    calls = results = 0
    for row in prepared.train:
        for token, given in zip(row.ids.tolist(), row.given.tolist(), strict=True):
            calls += token == special["</calc>"] and not given
            results += token == special["<result>"]
            assert given or token not in (special["<result>"], special["</result>"])
    assert calls > 20
    assert results >= calls


def test_thoughts_are_shown_in_the_share_that_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "thoughts.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {n}."},
                {"role": "assistant", "content": f"{n}", "reasoning_content": "It is a number."},
            ]
        }
        for n in range(400)
    ]
    file.write_text("\n".join(map(json.dumps, rows)))
    for share in (0.0, 0.45, 1.0):
        _, sides = chats.sides(data_of(file, think=share), QUIET)
        shown = [messages[1].think is not None for side in sides.values() for messages in side]
        assert abs(np.mean(shown) - share) < 0.08  # three standard errors of 400
    assert data_of(file).think == 0.45


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_replayed_documents_are_the_share_of_the_tokens(share: float) -> None:
    sources = (EmbeddedSource(parts=("stories",), documents=3000),)
    plain = ExerciseData(problems=300, tokenizer=TrainedTokenizer(vocab_size=400), exact=0)
    without = problems.prepare(plain, 400, QUIET)
    found = problems.prepare(dataclasses.replace(plain, replay=share, replay_from=sources), 400, QUIET)
    own = sum(len(row.ids) for row in without.train)
    replayed = found.train[len(without.train) :]
    tokens = sum(len(row.ids) for row in replayed)
    assert own / (own + tokens) == pytest.approx(1 - share, abs=0.01)
    assert all(row.prompt == 1 and not row.given[:-1].any() for row in replayed)  # learned whole
    text = found.tokenizer.decode(replayed[0].ids[1:-1].tolist())
    assert text.split()[0].isalpha()
    assert len(found.validation) == len(without.validation)
    ends = [not row.given[-1] for row in replayed]
    assert any(ends)


def test_what_cannot_be_is_one_line(talks: Path) -> None:
    with pytest.raises(BadRequest, match=r"data.replay: asks for .* tokens of documents, and the sources have"):
        problems.prepare(
            data_of(talks, replay=0.99, replay_from=(EmbeddedSource(parts=("stories",), documents=3),)), 400, QUIET
        )
    with pytest.raises(BadRequest, match=r"data.sequence_length: every problem"):
        problems.prepare(data_of(talks, sequence_length=4), 400, QUIET)
    with pytest.raises(ConfigError, match="exact: the answers of conversations"):
        data_of(talks, exact=3)
    with pytest.raises(ConfigError, match="replay: 1 is not"):
        data_of(talks, replay=1)
    bare = Tokenizer.parse(
        json.dumps(
            {
                "added_tokens": [
                    {
                        "id": 256,
                        "content": "<|endoftext|>",
                        "special": True,
                        "single_word": False,
                        "lstrip": False,
                        "rstrip": False,
                        "normalized": False,
                    }
                ],
                "normalizer": None,
                "pre_tokenizer": {
                    "type": "ByteLevel",
                    "add_prefix_space": False,
                    "trim_offsets": True,
                    "use_regex": True,
                },
                "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
                "model": {"type": "BPE", "vocab": letters(), "merges": []},
            }
        ),
        "bare",
    )
    with pytest.raises(BadRequest, match=r"no token '<\|im_start\|>'.*--data.format plain"):
        chats.encoded([[*TALK[:1], ChatMessage("assistant", "x")]], bare, data_of(talks))
    assert chats.encoded([[*TALK[:1], ChatMessage("assistant", "x")]], bare, data_of(talks, format="plain"))


def letters() -> dict[str, int]:
    """The byte-level alphabet: printable bytes stand for themselves, the others for characters from 256 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    names = {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}
    return {names[byte]: byte for byte in range(256)}


def test_a_run_learns_to_chat_and_resumes_exactly(
    sessions: Sessions, tiny_recipe: Path, talks: Path, tmp_path: Path
) -> None:
    mapping = strict_yaml.read(tiny_recipe)
    mapping["data"] = {
        "kind": "chat",
        "path": str(talks),
        "validation": 0.2,
        "sequence_length": 64,
        "tokenizer": {"kind": "train", "vocab_size": 300},
        "replay": 0.2,
        "replay_from": [{"kind": "embedded", "parts": ["stories"], "documents": 200}],
    }
    mapping["train"] |= {"repetition": {"smoothing": 0.1, "unlikelihood": 0.5, "entropy": 0.01}, "log_every": 1}
    recipe = tmp_path / "chat.yaml"
    recipe.write_text(json.dumps(mapping))
    start = ["--recipe", str(recipe), "--out"]
    whole, parts = (tmp_path / "runs" / name for name in ("whole", "parts"))
    results = sessions(
        [
            {"argv": [*start, str(whole)]},
            {"argv": [*start, str(parts)], "hurt": {"rank": 0, "step": 6, "signal": 15}},
            {"argv": ["--resume", str(parts)]},
        ]
    )
    assert [result.codes for result in results] == [[0], [3], [0]], [result.err for result in results]
    assert (parts / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    final = whole / "checkpoints" / "step_00000012"
    assert (parts / "checkpoints" / "step_00000012" / "model.safetensors").read_bytes() == (
        final / "model.safetensors"
    ).read_bytes()
    template = Tokenizer.load(final / "tokenizer.json").conventions.chat_template
    assert template is not None
    assert "<|im_start|>" in template
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if "loss/unlikelihood" in row or "unlikelihood" in row]
    assert len(trained) >= 12
