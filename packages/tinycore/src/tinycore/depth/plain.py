"""Plain depth: every layer once, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from tinycore.depth.stack import Stack
from tinycore.families import CallSite, DepthConfig, Scope


class Plain:
    """Calls 0, 1, 2, ... L-1."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="plain"):
        exempt: ClassVar[Mapping[str, str]] = {"identity": "is the plain stack itself"}
        runs_stream: ClassVar[bool] = True

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(CallSite(str(layer), layer) for layer in range(layers))

        def build(self, layers: int, scope: Scope) -> Stack:
            return Stack(self.call_sites(layers), scope)
