"""Claim: a tokenizer survives saving, foreign layouts keep their ids, and a broken or hostile file is one line.

uv run pytest packages/tinydata/tests/test_tokenizer_files.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from tinydata import tokenizer_file
from tinydata.conventions import Conventions
from tinydata.documents import Document
from tinydata.tokenizer import Tokenizer
from tinydata.tokenizer_file import TokenizerError
from tinydata.tokenizer_training import train_tokenizer

DOCUMENTS = [Document(f"the cat number {index} sat on the mat, the dog did not\n", "made up") for index in range(30)]
TRAINED = train_tokenizer(DOCUMENTS, 320)


def byte_alphabet() -> dict[int, str]:
    """GPT-2's rule, written from its definition: printable Latin-1 stands for itself, the rest for 256, 257..."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def foreign(end: str = "<|endoftext|>", **changes: Any) -> dict[str, Any]:
    """GPT-2's layout: bytes first, merges as "a b" strings, the separator last, no digits rule, no defaults spelled."""
    vocab = {character: index for index, character in enumerate(byte_alphabet().values())}
    merges = ["t h", "th e", "Ġ the", "i n"]
    for merge in merges:
        vocab[merge.replace(" ", "")] = len(vocab)
    vocab[end] = len(vocab)
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": vocab[end],
                "special": True,
                "content": end,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True},
        "model": {
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    return data | changes


def added(name: str, token_id: int, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token_id, "content": name, "special": special, **flags}


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


# --- files --------------------------------------------------------------------------------------------------------


def test_save_and_load_from_a_file_and_a_directory(tmp_path: Path) -> None:
    TRAINED.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["tokenizer.json"]
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert (loaded.hash, loaded.end_id, loaded.special) == (TRAINED.hash, TRAINED.end_id, TRAINED.special)
    assert tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json")).decode([70, 71]) == TRAINED.decode([70, 71])


def test_gpt2_layout(tmp_path: Path) -> None:
    path = write(tmp_path / "tokenizer.json", foreign())
    loaded = Tokenizer.load(path)
    assert (loaded.vocab_size, loaded.end_id, loaded.special) == (261, 260, {"<|endoftext|>": 260})
    text = "in the end, <|endoftext|> 1234 naïve"
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.encode_special_tokens = True
    assert loaded.encode(text) == reference.encode(text).ids
    assert loaded.decode(loaded.encode(text)) == text
    assert loaded.token_bytes()[[256, 257, 258, 260]].tolist() == [2, 3, 4, 0]  # th, the, " the", separator


def test_smollm2_layout(tmp_path: Path) -> None:
    """Specials first, digits rule in a sequence, merges as pairs, tags that were added as ordinary tokens."""
    data = json.loads(TRAINED._plain.to_str())
    for name, special in (("<repo_name>", True), ("<tool_call>", False), ("    ", False)):
        data["added_tokens"].append(added(name, TRAINED.vocab_size + len(data["added_tokens"]) - 16, special))
    loaded = Tokenizer.load(write(tmp_path / "tokenizer.json", data))
    assert loaded.special["<tool_call>"] == TRAINED.vocab_size + 1
    assert set(loaded.special.values()).isdisjoint(loaded.encode("<tool_call><repo_name><calc>"))
    # White space that somebody added to save tokens stays text.
    ids = loaded.encode("a    b")
    assert TRAINED.vocab_size + 2 in ids
    assert loaded.token_bytes()[ids].sum() == 6


def test_settings_that_would_change_documents_are_switched_off(tmp_path: Path) -> None:
    data = foreign(
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 64},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "!",
        },
        decoder=None,
    )
    data["model"]["dropout"] = 0.9
    data["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [260], "tokens": ["<|endoftext|>"]}},
    }
    plain = Tokenizer.load(write(tmp_path / "plain.json", foreign()))
    loaded = Tokenizer.load(write(tmp_path / "tokenizer.json", data))
    text = "the thing in the inn"
    assert loaded.encode(text) == plain.encode(text)
    assert loaded.decode(loaded.encode(text)) == text


def test_separator_by_known_name_eos_beside_the_file_or_argument(tmp_path: Path) -> None:
    assert Tokenizer.load(write(tmp_path / "tokenizer.json", foreign("</s>"))).end_token == "</s>"
    path = write(tmp_path / "tokenizer.json", foreign("<stop>"))
    with pytest.raises(TokenizerError, match=r"which special token ends a document\? Pass end_token="):
        Tokenizer.load(path)
    assert Tokenizer.load(path, end_token="<stop>").end_id == 260
    with pytest.raises(TokenizerError, match="is not a special token"):
        Tokenizer.load(path, end_token="the")
    for eos in ("<stop>", {"content": "<stop>", "lstrip": False}):
        write(tmp_path / "tokenizer_config.json", {"eos_token": eos})
        assert Tokenizer.load(path).end_id == 260
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json: not JSON"):
        Tokenizer.load(path)


def test_a_chosen_separator_survives_saving(tmp_path: Path) -> None:
    chosen = train_tokenizer(DOCUMENTS, 300, special_tokens=["<doc>", "</s>"])
    assert chosen.end_token == "<doc>"
    chosen.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.end_token, loaded.hash) == ("<doc>", chosen.hash)
    assert Tokenizer.load(tmp_path, end_token="</s>").hash != chosen.hash


def test_hash_ignores_formatting_and_sees_content(tmp_path: Path) -> None:
    data = foreign()
    original = Tokenizer.load(write(tmp_path / "a.json", data)).hash
    rearranged = dict(reversed(data.items()))
    rearranged["model"] = dict(reversed(data["model"].items())) | {"type": "BPE"}
    rearranged["model"]["vocab"] = dict(reversed(data["model"]["vocab"].items()))
    rearranged["model"]["merges"] = [merge.split(" ") for merge in data["model"]["merges"]]
    rearranged["pre_tokenizer"] = {**data["pre_tokenizer"], "use_regex": True}
    (tmp_path / "b.json").write_text(json.dumps(rearranged, indent=4, ensure_ascii=False), encoding="utf-8")
    assert Tokenizer.load(tmp_path / "b.json").hash == original
    for change in ("merges", "digits", "added"):
        other = foreign()
        if change == "merges":
            other["model"]["merges"].reverse()
        elif change == "digits":
            steps = [{"type": "Digits", "individual_digits": True}, other["pre_tokenizer"]]
            other["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
        else:
            other["added_tokens"].append(added("<x>", 261))
        assert Tokenizer.load(write(tmp_path / "c.json", other)).hash != original, change


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in foreign().items() if name != key}


def model(**changes: Any) -> dict[str, Any]:
    return foreign(model=foreign()["model"] | changes)


ALPHABET = {character: index for index, character in enumerate(byte_alphabet().values())}
HOSTILE: dict[str, tuple[object, str]] = {
    "list": ([], "not a BPE tokenizer.json"),
    "no model": (without("model"), "not a BPE tokenizer.json"),
    "word piece": (model(type="WordPiece"), "not a BPE tokenizer.json"),
    "empty vocabulary": (model(vocab={}), "missing or empty"),
    "vocabulary list": (model(vocab=["a"]), "missing or empty"),
    "negative id": (model(vocab=ALPHABET | {"x!": -1}), "has no id in"),
    "true as id": (model(vocab=ALPHABET | {"x!": True}), "has no id in"),
    "huge id": (model(vocab=ALPHABET | {"x!": 2**31}), "has no id in"),
    "shared id": (model(vocab=ALPHABET | {"x!": 3}), "share an id"),
    "merge of three": (model(merges=["a b c"]), "not a pair"),
    "merge of numbers": (model(merges=[[1, 2]]), "not a pair"),
    "merges number": (model(merges=7), "not a list"),
    "merges null": (model(merges=None), "not a list"),
    "unknown merge": (model(merges=["qq zz"]), "out of vocabulary"),
    "no byte level": (foreign(pre_tokenizer={"type": "Whitespace"}), "not a byte-level"),
    "no splitting": (foreign(pre_tokenizer=None), "not a byte-level"),
    "odd sequence": (foreign(pre_tokenizer={"type": "Sequence", "pretokenizers": 3}), "not a byte-level"),
    "prefix space": (foreign(pre_tokenizer={"type": "ByteLevel"}), "adds a space"),
    "bad expression": (
        foreign(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False},
                ],
            }
        ),
        "not a tokenizer.json",
    ),
    "unknown normalizer": (foreign(normalizer={"type": "Nothing"}), "not a tokenizer.json"),
    "added tokens object": (foreign(added_tokens={}), "not a list"),
    "added token without content": (foreign(added_tokens=[{"id": 3}]), "no 'content'"),
    "added token without id": (foreign(added_tokens=[{"content": "<x>"}]), "has no id in"),
    "added token with two ids": (foreign(added_tokens=[added("<|endoftext|>", 7)]), "has another id"),
    "gap": (foreign(added_tokens=[*foreign()["added_tokens"], added("<x>", 999)]), "leaves a gap"),
    "byte as special": (foreign(added_tokens=[added("a", ALPHABET["a"])]), "can spell the special token 'a'"),
    "merge spells special": (foreign(added_tokens=[added("the", 257)]), "can spell the special token 'the'"),
    "whole word spells special": (
        foreign(
            model=foreign()["model"] | {"ignore_merges": True},
            pre_tokenizer={
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
        ),
        "can spell the special token",
    ),
    "no special": (foreign(added_tokens=[]), "which special token ends a document"),
    "surrogate": (model(vocab=ALPHABET | {"\ud800": 256}, merges=[]), "not a tokenizer.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_or_hostile_file_is_one_line(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    path = write(tmp_path / "tokenizer.json", data)
    with pytest.raises(TokenizerError, match=message) as caught:
        Tokenizer.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[" * 200_000, b'{"model":', b"\x80\x04K\x01."])
def test_a_file_that_is_not_json_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match="not JSON"):
        Tokenizer.load(tmp_path)


def test_missing_and_oversized_files_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TokenizerError, match="cannot read the tokenizer: No such file"):
        Tokenizer.load(tmp_path)
    TRAINED.save(tmp_path)
    monkeypatch.setattr(tokenizer_file, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TokenizerError, match="more than a tokenizer file may have"):
        Tokenizer.load(tmp_path)


def test_from_hub_reads_the_cache_and_fails_in_one_line(tmp_path: Path) -> None:
    """The real download path, offline: a cached repository is found, a missing one is one line."""
    cached = tmp_path / "hub" / "models--somebody--gpt2"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    write(cached / "snapshots" / ("0" * 40) / "tokenizer.json", foreign())
    program = textwrap.dedent(
        """
        from tinydata.tokenizer import Tokenizer
        from tinydata.tokenizer_file import TokenizerError
        print(Tokenizer.from_hub("somebody/gpt2").vocab_size)
        for name in ("nobody/nothing", "../../etc/passwd"):
            try:
                Tokenizer.from_hub(name)
            except TokenizerError as error:
                print(error)
        """
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    environment.pop("HF_HUB_CACHE", None)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    found, missing, malformed = done.stdout.splitlines()
    assert found == "261"
    assert missing.startswith("tokenizer 'nobody/nothing' cannot be had from the hub:")
    assert malformed == "tokenizer '../../etc/passwd': a hub name looks like 'owner/name'"


# --- growing ------------------------------------------------------------------------------------------------------


def test_added_tokens_are_appended_and_the_old_ids_stay(tmp_path: Path) -> None:
    grown = TRAINED.add_tokens(["<tool>", "<calc>", "</tool>", "<tool>"])
    size = TRAINED.vocab_size
    assert (grown.vocab_size, grown.special["<tool>"], grown.special["</tool>"]) == (size + 2, size, size + 1)
    assert (grown.special["<calc>"], grown.end_id) == (TRAINED.special["<calc>"], TRAINED.end_id)
    text = "a <tool>7</tool>"
    assert grown.encode(text) == TRAINED.encode(text)
    assert grown.encode(text, allow_special=True)[-1] == size + 1
    assert grown.token_bytes().tolist() == [*TRAINED.token_bytes().tolist(), 0, 0]
    assert grown.hash != TRAINED.hash
    assert TRAINED.vocab_size == size
    grown.save(tmp_path)
    assert Tokenizer.load(tmp_path).hash == grown.hash


@pytest.mark.parametrize("name", ["", "a", "th"])
def test_an_ordinary_token_cannot_become_special(name: str, tmp_path: Path) -> None:
    loaded = Tokenizer.load(write(tmp_path / "tokenizer.json", foreign()))
    with pytest.raises(TokenizerError, match="cannot add"):
        loaded.add_tokens([name])


def test_conventions_travel_with_the_tokenizer(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    TRAINED.save(first)
    assert sorted(path.name for path in first.iterdir()) == ["tokenizer.json"]
    template = "{% for m in messages %}\r\n<|im_start|>{{ m.content }}€{% endfor %}"
    (first / "chat_template.jinja").write_bytes(template.encode())
    write(first / "tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}, "bos_token": "<|im_start|>"})
    loaded = Tokenizer.load(first)
    assert loaded.end_token == "<|endoftext|>"
    assert loaded.conventions == Conventions(None, "<|im_start|>", "<|im_end|>", template)
    loaded.add_tokens(["<new>"]).save(second / "tokenizer.json")
    again = Tokenizer.load(second)
    assert again.conventions == loaded.conventions
    assert again.end_token == "<|endoftext|>"
    assert Tokenizer.load(first).hash == TRAINED.hash


def test_an_older_template_stands_in_the_config(tmp_path: Path) -> None:
    TRAINED.save(tmp_path)
    write(tmp_path / "tokenizer_config.json", {"chat_template": "one"})
    assert Tokenizer.load(tmp_path).conventions.chat_template == "one"
    several = [{"name": "tool_use", "template": "no"}, 7, {"name": "default", "template": "two"}]
    write(tmp_path / "tokenizer_config.json", {"chat_template": several})
    assert Tokenizer.load(tmp_path).conventions.chat_template == "two"
    (tmp_path / "chat_template.jinja").write_text("three")
    assert Tokenizer.load(tmp_path).conventions.chat_template == "three"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("chat_template.jinja", b"x" * (2**18 + 1)),
        ("chat_template.jinja", b"\xff\xfe"),
        ("tokenizer_config.json", b"[" * 5000),
        ("tokenizer_config.json", b"7"),
        ("tokenizer_config.json", b'{"chat_template": "\\ud800"}'),
        ("tokenizer_config.json", b'{"chat_template": "' + b"x" * (2**18 + 1) + b'"}'),
    ],
)
def test_hostile_conventions_are_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    TRAINED.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
