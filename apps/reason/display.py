"""What apps/reason shows: the chosen candidate step by step, the others in one line each, what was spent."""

from __future__ import annotations

import re

from apps.common.markdown import table
from tinyreason.test_time import Candidate, Chosen

SHOWN = 16  # candidates in the table
_CALL = re.compile(r"<([a-z]\w*)>([^<]*)</\1>(?:<result>([^<]*)</result>)?")
_TAG = re.compile(r"</?[a-z]\w*>")
_UNPRINTABLE = {code: "\ufffd" for code in (*range(32), 127, *range(128, 160)) if chr(code) not in "\n\t"}


def shown(prompt: str, chosen: Chosen, asked: int) -> str:
    """The whole answer as a person reads it."""
    parts = [prompt.rstrip("\n"), "", worked(chosen.text), ""]
    if asked > 1:
        parts += [candidates(chosen), ""]
        if len(chosen.candidates) < asked:
            parts += [
                f"{asked - len(chosen.candidates)} of {asked} were not asked for: nothing could change any more",
                "",
            ]
    parts.append(f"answer: {printable(chosen.answer)}" if chosen.answer is not None else "no answer was found in it")
    spent = chosen.spent
    counted = f"{spent.tokens:,} tokens, {spent.calls} call{'' if spent.calls == 1 else 's'} of tools"
    parts.append(f"({counted}, {spent.seconds:.1f} s)")
    return "\n".join(parts)


def worked(text: str) -> str:
    """A completion with its calls on lines of their own: `347*892 -> 309524  (calc)`."""
    lines: list[str] = []
    at = 0
    for call in _CALL.finditer(text):
        lines.append(_TAG.sub("", text[at : call.start()]))
        request, result = call[2].strip(), "no answer" if call[3] is None else call[3].strip()
        mark = "\n        " if "\n" in request else " "
        lines.append(f"\n    {call[1]}:{mark}{request.replace(chr(10), mark)}\n      -> {result}\n")
        at = call.end()
    lines.append(_TAG.sub("", text[at:]))
    joined = printable("".join(lines))
    return "\n".join(line.rstrip() for line in joined.splitlines() if line.strip())


def candidates(chosen: Chosen) -> str:
    """One row a candidate: its answer, its score, how many share the answer, its log-probability."""
    votes: dict[str | None, int] = {}
    for candidate in chosen.candidates:
        votes[candidate.answer] = votes.get(candidate.answer, 0) + 1
    rows = [_row(index, candidate, chosen, votes) for index, candidate in enumerate(chosen.candidates[:SHOWN])]
    text = table(["candidate", "answer", "score", "same answer", "log-probability"], rows)
    left = len(chosen.candidates) - SHOWN
    return f"{text}\n({left} more)" if left > 0 else text


def _row(index: int, candidate: Candidate, chosen: Chosen, votes: dict[str | None, int]) -> list[str]:
    mark = " <- taken" if index == chosen.index else ""
    logprob = candidate.completion.logprob
    return [
        f"{index + 1}{mark}",
        "none" if candidate.answer is None else printable(candidate.answer)[:40],
        "" if candidate.score is None else f"{candidate.score:.3f}",
        str(votes[candidate.answer]),
        "" if logprob is None else f"{logprob:.2f}",
    ]


def printable(text: str) -> str:
    """`text` without what a terminal would take for a command."""
    return text.translate(_UNPRINTABLE)
