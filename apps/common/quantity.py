"""Numbers as people write them: `226k`, `10M`, `1.5B`, `1e9`."""

from __future__ import annotations

import re
from decimal import Decimal

from apps.common.errors import BadRequest

POWERS = {"": 0, "k": 3, "M": 6, "B": 9, "T": 12}
_WRITTEN = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(?:[eE]\+?(\d{1,2}))?([kKmMbBtT]?)")


def read(text: str, option: str, unit: str) -> int:
    """The whole number that `text` writes (k, M, B and T are thousands); BadRequest, one line, for anything else."""
    match = _WRITTEN.fullmatch(text.strip())
    value = Decimal(match[1]).scaleb(int(match[2] or 0) + POWERS[_suffix(match[3])]) if match else Decimal(0)
    if value < 1:
        raise BadRequest(f"--{option}: {text!r} is no number of {unit}; write it as 200k, 10M, 1.5B or 1e9")
    return round(value)


def name(value: int, like: str = "") -> str:
    """`value` in short, with the suffix that `like` ends with if it has one: 500,000 is 500k, and 0.5M like "0.5m"."""
    suffix = _suffix(like.strip()[-1:])
    if not suffix:
        suffix = max((known for known, power in POWERS.items() if value >= 10**power), key=lambda known: POWERS[known])
    return f"{Decimal(value).scaleb(-POWERS[suffix]).normalize():f}{suffix}"


def _suffix(letter: str) -> str:
    """The suffix as it is written properly, "" for what is none."""
    return next((known for known in POWERS if known and known.lower() == letter.lower()), "")
