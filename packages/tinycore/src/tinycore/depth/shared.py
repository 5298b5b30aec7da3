"""Immediate block-wise weight sharing (MobileLLM, arXiv 2402.14905): 0,0,1,1,2,2,...

Groups of `group` layers, in order, are each applied `times` times in a row: 0,1,0,1,2,3,2,3 for groups of two. A group of all
layers is a loop; one layer, called 24 times, is the extreme. Weights exist once (the seed's parent project held them once
per call in its checkpoints and scaled the output initialisation once per call); decoding state exists once per call.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from tinycore.config import ConfigError
from tinycore.depth.stack import Stack
from tinycore.families import CallSite, DepthConfig, Scope


class Shared:
    """Calls 0, 0, 1, 1, ... for `times: 2`; `times: 1` is plain depth, whatever the group."""

    @dataclass(frozen=True, kw_only=True)
    class Config(DepthConfig, kind="shared"):
        runs_stream: ClassVar[bool] = True
        times: int = field(default=2, metadata={"help": "applications of each group of layers, in a row"})
        group: int = field(default=1, metadata={"help": "layers that are repeated together"})

        def __post_init__(self) -> None:
            if not 1 <= self.times <= 256:
                raise ConfigError(f"times: {self.times} is not between 1 and 256")
            if self.group < 1:
                raise ConfigError(f"group: {self.group} is not positive")

        def check(self, layers: int) -> None:
            if layers % self.group:
                raise ConfigError(f"group: {self.group} does not divide the model's {layers} layers")

        def call_sites(self, layers: int) -> tuple[CallSite, ...]:
            return tuple(
                CallSite(f"{layer}.{call}", layer)
                for first in range(0, layers, self.group)
                for call in range(self.times)
                for layer in range(first, first + self.group)
            )

        def build(self, layers: int, scope: Scope) -> Stack:
            return Stack(self.call_sites(layers), scope)
