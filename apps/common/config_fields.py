"""Fields of a recipe's dataclasses: how one is described, and the checks that several make."""

from __future__ import annotations

from dataclasses import MISSING, field
from typing import Any

from tinycore.config import ConfigError


def positive(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}: {value} is not positive")


def not_negative(owner: object, *names: str) -> None:
    for name in names:
        if getattr(owner, name) < 0:
            raise ConfigError(f"{name}: {getattr(owner, name)} is negative")


def share(owner: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(owner, name) <= 1:
            raise ConfigError(f"{name}: {getattr(owner, name)} is not a share between 0 and 1")


def below_one(owner: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(owner, name) < 1:
            raise ConfigError(f"{name}: {getattr(owner, name)} is not at least 0 and below 1")


def described(help: str, default: Any = MISSING) -> Any:
    return field(metadata={"help": help}) if default is MISSING else field(default=default, metadata={"help": help})
