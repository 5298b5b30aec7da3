"""Verdicts in a file, one JSON object a line: written by apps/verify, read back as encoded rows.

    {"prompt": "Question: ...", "answer": "<think>...", "right": true, "parts": [[57, 1], [80, 1]]}

The file may be a stranger's: every line is checked, and what is no verdict is left out and counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from apps.common import files
from apps.common.console import Console
from apps.common.data_config import HubTokenizer, TokenizerFile
from apps.common.errors import BadRequest
from apps.common.prepared import Tokenized
from apps.common.verdict_config import VerdictData
from tinydata import EncodedVerdict, Tokenizer, Verdict, encode_verdicts, split_of
from tinydata.verdict_loader import verdicts_key

MAX_FILE_BYTES = 2**31
MAX_LINE_CHARACTERS = 2**16


@dataclass(frozen=True)
class PreparedVerdicts(Tokenized):
    """Encoded verdicts to train on and to score."""

    train: list[EncodedVerdict]
    validation: list[EncodedVerdict]

    @cached_property
    def dataset(self) -> dict[str, str]:
        """What is trained on and scored, by hashes of the contents."""
        return {"train": verdicts_key(self.train), "validation": verdicts_key(self.validation)}


def write(path: Path, verdicts: Iterable[Verdict]) -> None:
    """Write them, atomically."""
    files.write_text(path, "".join(json.dumps(asdict(verdict), ensure_ascii=False) + "\n" for verdict in verdicts))


def read(path: Path) -> tuple[list[Verdict], int]:
    """The verdicts of a file, and how many lines are none. Raises BadRequest for a file that cannot be read."""
    if not path.is_file():
        raise BadRequest(f"{path}: no such file; uv run apps/verify RUN writes one")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadRequest(f"{path}: larger than {MAX_FILE_BYTES >> 30} GiB")
    found, odd = [], 0
    with path.open(encoding="utf-8", errors="replace") as handle:
        while line := handle.readline(MAX_LINE_CHARACTERS + 1):
            verdict = _verdict(line)
            if verdict is None:
                odd += bool(line.strip())
            else:
                found.append(verdict)
    return found, odd


def prepare(data: VerdictData, console: Console) -> PreparedVerdicts:
    """The verdicts of `data`. Raises BadRequest or TokenizerError, one line."""
    verdicts, odd = read(Path(data.path))
    if isinstance(data.tokenizer, TokenizerFile):
        tokenizer = Tokenizer.load(data.tokenizer.path)
    elif isinstance(data.tokenizer, HubTokenizer):
        tokenizer = Tokenizer.from_hub(data.tokenizer.name)
    else:
        raise BadRequest("data.tokenizer: a verifier reads what a generator wrote; name the generator by --init-from")
    sides: dict[str, list[Verdict]] = {"train": [], "validation": []}
    for verdict in verdicts:
        sides[split_of(verdict.prompt, {"validation": data.validation})].append(verdict)
    encoded, left_out = {}, 0
    for side, found in sides.items():
        rows = encode_verdicts(found, tokenizer)
        encoded[side] = [row for row in rows if len(row.ids) <= data.sequence_length]
        left_out += len(rows) - len(encoded[side])
        if not encoded[side]:
            raise BadRequest(f"{data.path}: no verdict fell into the {side} split; give more of them")
    if odd:
        console.say(f"{data.path}: left out {odd:,} lines that are no verdict")
    if left_out:
        console.say(f"{data.path}: left out {left_out:,} answers of more than {data.sequence_length} tokens")
    right = sum(row.right for row in encoded["train"])
    console.say(
        f"{data.path}: {len(encoded['train']):,} answers to train on, {right / len(encoded['train']):.0%} of them right; "
        f"{len(encoded['validation']):,} held out"
    )
    return PreparedVerdicts(tokenizer, encoded["train"], encoded["validation"])


def _verdict(line: str) -> Verdict | None:
    try:
        row: Any = json.loads(line)
        parts = tuple((end, label) for end, label in row["parts"])
        verdict = Verdict(row["prompt"], row["answer"], parts, row["right"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    ends = [0, *(end for end, _ in parts)]
    whole = all(isinstance(end, int) and not isinstance(end, bool) for end in ends)
    texts = isinstance(verdict.prompt, str) and isinstance(verdict.answer, str)
    if not (whole and texts and isinstance(verdict.right, bool) and all(label in (0, 1, None) for _, label in parts)):
        return None
    return verdict if ends == sorted(ends) and ends[-1] == len(verdict.answer) else None
