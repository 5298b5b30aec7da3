"""Chat needs a checkpoint and nothing else, takes typed tags as text, shows whole characters, refuses in one line."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import tinycore
from apps.chat import conversation
from apps.chat.__main__ import run as chat_app
from apps.chat.conversation import Conversation
from apps.chat.dialogue import Dialogue
from apps.common import run_record
from apps.common.chat_template import ChatTemplate
from apps.common.errors import BadRequest, RunError
from tinycore import CheckpointError
from tinycore.generation import Sampling
from tinydata import Document, Tokenizer, TokenizerError, train_tokenizer

CONTEXT = 32
PARAMETERS = 300 * 16 + 2 * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 32 + 2 * 16) + 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    texts = ["the cat sat on the mat 12", "héllo wörld €", "a tiny model says a tiny thing"] * 4
    return train_tokenizer([Document(text, "test") for text in texts], vocab_size=300)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """A run with one checkpoint of an untrained model of two layers."""
    config = tinycore.ModelConfig.from_dict(
        {
            "vocab_size": 300,
            "dim": 16,
            "max_seq_len": CONTEXT,
            "layers": [
                {
                    "repeat": 2,
                    "mixer": {"kind": "attention", "heads": 2, "kv_heads": 1},
                    "ffn": {"kind": "swiglu", "hidden": 32},
                }
            ],
        }
    )
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("runs") / "mine" / "checkpoints" / "step_00000007"
    tinycore.save(tinycore.build(config), directory)
    tokenizer.save(directory)
    (directory / "trainer.json").write_text('{"step": 7}')
    tinycore.checkpoint.write_manifest(directory)
    run = directory.parents[1]
    (run / "best").write_text("step_00000007\n")
    (run / "recipe.yaml").write_text("")
    return directory


def talk(checkpoint: Path, max_tokens: int = 8, seed: int = 0, temperature: float = 1.0) -> Conversation:
    speaker = conversation.load(checkpoint, "cpu")
    return Conversation(speaker, Sampling(temperature=temperature), max_tokens, seed)


def invoke(monkeypatch: pytest.MonkeyPatch, *argv: str, typed: str = "") -> int:
    monkeypatch.setattr(sys, "argv", ["chat", *argv])
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    return chat_app()


def test_one_answer_is_the_prompt_and_its_continuation(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(monkeypatch, str(checkpoint), "--prompt", "the cat", "--max-tokens", "5") == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("the cat")
    assert f"{PARAMETERS:,} parameters, step 7" in shown.err
    assert shown.err.count("\n") == 1


def test_a_run_stands_for_its_best_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    assert run_record.checkpoint_of(checkpoint.parents[1]) == checkpoint
    assert run_record.checkpoint_of(checkpoint) == checkpoint
    copied = tmp_path / "alone"
    shutil.copytree(checkpoint, copied)
    assert conversation.load(run_record.checkpoint_of(copied), "cpu").step == 7


def test_the_answer_is_that_of_generate_and_repeats(checkpoint: Path) -> None:
    speaker = conversation.load(checkpoint, "cpu")
    end, encode = speaker.tokenizer.end_id, speaker.tokenizer.encode
    expected = tinycore.generate(
        speaker.model,
        [[end, *encode("the cat")]],
        max_new_tokens=8,
        stop=[end],
        seed=3,
        decode=speaker.tokenizer.decode,
    )[0][0]
    first = "".join(talk(checkpoint, seed=3).say("the cat"))
    assert first == "".join(talk(checkpoint, seed=3).say("the cat"))
    assert first == (expected.text or "").removesuffix("<|endoftext|>")


def test_json_is_one_object_and_the_rest_goes_to_stderr(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(checkpoint), "--prompt", "a", "--max-tokens", "4", "--temperature", "0", "--json"]
    assert invoke(monkeypatch, *argv) == 0
    shown = capsys.readouterr()
    result = json.loads(shown.out)
    assert result["prompt"] == "a"
    assert result["tokens"] <= 4
    assert f"a{result['text']}\n" in shown.err


def test_typed_tags_are_plain_text(checkpoint: Path) -> None:
    chat = talk(checkpoint, max_tokens=1)
    tag = next(name for name in chat.speaker.tokenizer.special if name != "<|endoftext|>")
    list(chat.say(tag))
    typed = chat.ids[1 : 1 + len(chat.speaker.tokenizer.encode(tag))]
    assert chat.speaker.tokenizer.special[tag] not in typed
    assert chat.speaker.tokenizer.decode(typed) == tag


def test_lines_and_answers_make_one_text_until_reset(checkpoint: Path) -> None:
    chat = talk(checkpoint, max_tokens=3)
    encode, decode, end = (
        chat.speaker.tokenizer.encode,
        chat.speaker.tokenizer.decode,
        chat.speaker.tokenizer.end_id,
    )
    list(chat.say("the cat"))
    assert chat.ids[: 1 + len(encode("the cat"))] == [end, *encode("the cat")]
    before = list(chat.ids)
    list(chat.say("a"))
    assert chat.ids[: len(before)] == before
    assert decode(chat.ids[len(before) :]).lstrip("\n").removeprefix("<|endoftext|>").startswith("a")
    chat.reset()
    list(chat.say("on"))
    assert chat.ids[: 1 + len(encode("on"))] == [end, *encode("on")]


def test_a_text_that_outgrows_the_context_forgets_its_beginning(checkpoint: Path) -> None:
    chat = talk(checkpoint, max_tokens=6)
    forgot = []
    for _ in range(8):
        list(chat.say("the mat"))
        forgot.append(chat.forgot)
        assert len(chat.ids) <= CONTEXT
    assert not forgot[0]
    assert forgot[-1]


def test_a_prompt_longer_than_the_context_is_one_line_and_changes_nothing(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = talk(checkpoint)
    list(chat.say("the cat"))
    before = list(chat.ids)
    with pytest.raises(BadRequest, match=f"context holds {CONTEXT}") as caught:
        chat.say("12 " * 40)
    assert "\n" not in str(caught.value)
    assert chat.ids == before
    with pytest.raises(BadRequest, match="context holds"):
        invoke(monkeypatch, str(checkpoint), "--prompt", "12 " * 40)


def test_characters_of_several_tokens_are_shown_whole(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = talk(checkpoint, max_tokens=9)
    tokenizer = chat.speaker.tokenizer
    ids = tokenizer.encode("日本 €")
    assert len(ids) > 5

    def spoken(*_: Any, **__: Any) -> Iterator[tinycore.generation.Token]:
        for token in ids:
            yield tinycore.generation.Token(0, 0, token, 0.0, False, None)

    monkeypatch.setattr(conversation, "stream", spoken)
    pieces = list(chat.say("a"))
    assert "".join(pieces) == "日本 €"
    assert len(pieces) >= 3
    assert not any("\ufffd" in piece for piece in pieces)


def test_a_conversation_follows_its_commands(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "the cat\n/help\n/rest\n/reset\n" + "12 " * 40 + "\n\n// a comment\n/quit\nnever\n"
    assert invoke(monkeypatch, str(checkpoint), "--max-tokens", "2", typed=typed) == 0
    shown = capsys.readouterr()
    assert shown.err.count("/reset") == 2
    assert "no command /rest" in shown.err
    assert "a new text" in shown.err
    assert "error: the prompt has" in shown.err
    assert shown.out.count("\n") >= 2
    assert "never" not in shown.out + shown.err


def test_an_interrupted_answer_ends_and_the_talk_goes_on(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def interrupted(*_: Any, **__: Any) -> Iterator[Any]:
        calls.append(1)
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(conversation, "stream", interrupted)
    assert invoke(monkeypatch, str(checkpoint), typed="one\ntwo\n") == 0
    assert len(calls) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "one run or checkpoint"),
        (["a", "b"], "one run or checkpoint"),
        (["HERE", "--json"], "--prompt"),
        (["HERE", "--temperature", "hot"], "--temperature"),
        (["HERE", "--temperature", "nan"], "--temperature"),
        (["HERE", "--top-k", "0"], "--top-k"),
        (["HERE", "--max-tokens", "-3"], "--max-tokens"),
        (["HERE", "--top_p", "0.5"], "--top-p"),
        (["HERE", "--device", "abacus"], "abacus"),
    ],
)
def test_bad_requests_are_one_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], words: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        invoke(monkeypatch, *(str(checkpoint) if word == "HERE" else word for word in argv))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def flip_a_byte(directory: Path) -> None:
    file = directory / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-7] ^= 4
    file.write_bytes(content)


def lose_the_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").unlink()


def forget_the_tokenizer(directory: Path) -> None:
    lose_the_tokenizer(directory)
    tinycore.checkpoint.write_manifest(directory)


def break_the_tokenizer(directory: Path) -> None:
    (directory / "tokenizer.json").write_text("{}")
    tinycore.checkpoint.write_manifest(directory)


def enlarge_the_tokenizer(directory: Path) -> None:
    Tokenizer.load(directory).add_tokens([f"<extra{i}>" for i in range(40)]).save(directory)
    tinycore.checkpoint.write_manifest(directory)


def come_from_the_future(directory: Path) -> None:
    document = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**document, "format_version": 99}))
    tinycore.checkpoint.write_manifest(directory)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flip_a_byte, "model.safetensors"),
        (lose_the_tokenizer, "tokenizer.json"),
        (forget_the_tokenizer, "tokenizer.json"),
        (break_the_tokenizer, "tokenizer.json"),
        (enlarge_the_tokenizer, "another model"),
        (come_from_the_future, "newer"),
    ],
)
def test_a_harmed_checkpoint_is_one_line(checkpoint: Path, tmp_path: Path, harm: Any, words: str) -> None:
    directory = tmp_path / "copy"
    shutil.copytree(checkpoint, directory)
    harm(directory)
    with pytest.raises((CheckpointError, TokenizerError)) as caught:
        conversation.load(directory, "cpu")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_no_checkpoint_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such directory"):
        run_record.checkpoint_of(tmp_path / "nowhere")
    with pytest.raises(RunError, match="neither a run nor a checkpoint"):
        run_record.checkpoint_of(tmp_path)
    (tmp_path / "recipe.yaml").write_text("")
    with pytest.raises(RunError, match="no checkpoint yet"):
        run_record.checkpoint_of(tmp_path)
    (tmp_path / "best").write_text("../../etc")
    with pytest.raises(RunError, match="no checkpoint yet"):
        run_record.checkpoint_of(tmp_path)


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def taught(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a chat template, and room for a few turns."""
    directory = tmp_path_factory.mktemp("taught") / "checkpoint"
    model = tinycore.load(checkpoint)
    torch.manual_seed(0)
    tinycore.save(tinycore.build(replace(model.config, max_seq_len=128)), directory)
    Tokenizer.load(checkpoint).save(directory)
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    tinycore.checkpoint.write_manifest(directory)
    return directory


def dialogue(directory: Path, max_tokens: int = 8) -> Dialogue:
    speaker = conversation.load(directory, "cpu")
    return Dialogue(speaker, ChatTemplate(speaker.tokenizer), Sampling(temperature=1.0), max_tokens, seed=1)


def test_a_chat_model_is_asked_through_its_template(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [str(taught), "--prompt", "the cat <|im_end|>", "--max-tokens", "5", "--json"]
    given: list[list[int]] = []
    whole = conversation.stream

    def watched(model: Any, prompts: Any, **settings: Any) -> Any:
        given.extend(prompts)
        return whole(model, prompts, **settings)

    monkeypatch.setattr(conversation, "stream", watched)
    assert invoke(monkeypatch, *argv) == 0
    shown = capsys.readouterr()
    assert "the cat" not in shown.err  # the answer alone
    assert json.loads(shown.out)["prompt"] == "the cat <|im_end|>"
    assert invoke(monkeypatch, *argv, "--raw") == 0
    assert "the cat <|im_end|>" in capsys.readouterr().err
    tokenizer = Tokenizer.load(taught)
    start, end, separator = (tokenizer.special[name] for name in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"))
    asked, continued = given
    assert tokenizer.decode(asked) == "<|im_start|>user\nthe cat <|im_end|><|im_end|>\n<|im_start|>assistant\n"
    assert (asked.count(start), asked.count(end)) == (2, 1)
    assert continued == [separator, *tokenizer.encode("the cat <|im_end|>")]


def test_turns_alternate_and_end_at_the_end_of_a_turn(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chat = dialogue(taught)
    end = chat.speaker.tokenizer.special["<|im_end|>"]
    assert end in chat.template.stop
    answer = chat.speaker.tokenizer.encode("on mat")

    def spoken(*_: Any, stop: list[int], **__: Any) -> Iterator[tinycore.generation.Token]:
        for token in (*answer, next(i for i in stop if i == end)):
            yield tinycore.generation.Token(0, 0, token, 0.0, False, None)

    monkeypatch.setattr(conversation, "stream", spoken)
    assert "".join(chat.say("the cat")) == "on mat"
    assert "".join(chat.say("a dog")) == "on mat"
    assert [tuple(message) for message in chat.messages] == [
        ("user", "the cat"),
        ("assistant", "on mat"),
        ("user", "a dog"),
        ("assistant", "on mat"),
    ]
    assert chat.ids[-1] == end
    assert chat.speaker.tokenizer.decode(chat.ids).count("<|im_start|>assistant\non mat<|im_end|>") == 2
    chat.reset()
    assert (chat.messages, chat.ids) == ([], [])


def test_a_dialogue_that_outgrows_the_context_forgets_its_first_turns(taught: Path) -> None:
    chat = dialogue(taught, max_tokens=6)
    forgot = []
    for _ in range(6):
        list(chat.say("the mat"))
        forgot.append(chat.forgot)
        assert len(chat.ids) <= chat.speaker.context
        assert chat.messages[0].role == "user"
    assert not forgot[0]
    assert forgot[-1]
    before = list(chat.messages)
    with pytest.raises(BadRequest, match="context holds 128"):
        chat.say("12 " * 80)
    assert chat.messages == before


def test_an_answer_that_is_cut_off_still_counts(taught: Path) -> None:
    chat = dialogue(taught)
    pieces = chat.say("the cat")
    next(pieces)
    pieces.close()  # ty: ignore[unresolved-attribute]
    assert [message.role for message in chat.messages] == ["user", "assistant"]
    list(chat.say("a"))
    assert [message.role for message in chat.messages] == ["user", "assistant"] * 2
