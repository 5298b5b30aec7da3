"""How many directions each block's output uses: the singular values of the stream behind it, by `tinyeval.metrics.spectrum`.

Looked at are the calls of layers on a few thousand tokens of held-out text (of puzzles: on boards), in the order of the calls,
the last MOST of them where layers are called more often. The stream is centred, float64; the rank without centring stands
beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from apps.common import files, plots
from apps.common.markdown import table
from tinycore import Decoder
from tinydata import Tokenizer
from tinyeval.metrics import Spectrum, spectrum

TOKENS, LONGEST, MOST = 2048, 256, 64
DIGITS = 6


@dataclass(frozen=True)
class Block:
    """One call of a layer. rank, plain_rank: directions that hold 95 % of the energy, of the centred stream and of the stream
    as it is; values: singular values of the centred one over the first, the largest first."""

    call: int
    layer: int
    tokens: int
    width: int
    rank: int
    plain_rank: int
    values: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "values": list(self.values)}

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> Block:
        """Back from plain data."""
        read: dict[str, Any] = {**mapping, "values": tuple(mapping["values"])}
        return cls(**read)


def rows_of(texts: Sequence[str], tokenizer: Tokenizer, context: int) -> torch.Tensor:
    """(R, T) tokens of texts one behind the other, the end token before each; at most TOKENS of them. T >= 1."""
    ids: list[int] = []
    for text in texts:
        ids += [tokenizer.end_id, *tokenizer.encode(text)]
        if len(ids) >= TOKENS:
            break
    length = max(1, min(LONGEST, context, len(ids)))
    count = max(1, min(len(ids), TOKENS) // length)
    return torch.tensor(ids[: count * length]).view(count, length)


@torch.no_grad()
def measure(model: Decoder, rows: torch.Tensor) -> list[Block]:
    """The blocks of a forward pass over rows (R, T)."""
    kept: list[tuple[int, np.ndarray]] = []
    hooks = [
        layer.register_forward_hook(
            lambda module, given, out, index=index: (
                kept.append(
                    (index, (out[0] if isinstance(out, tuple) else out).detach().flatten(0, -2).float().cpu().numpy())
                )
                or _forget(kept)
            )
        )
        for index, layer in enumerate(model.layers)
    ]
    try:
        model(rows.to(next(model.parameters()).device), return_logits=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [_block(number, layer, stream) for number, (layer, stream) in enumerate(kept, start=1)]


def _forget(kept: list[tuple[int, np.ndarray]]) -> None:
    """All but the last calls."""
    del kept[:-MOST]


def _block(number: int, layer: int, stream: np.ndarray) -> Block:
    centred: Spectrum = spectrum(stream)
    largest = float(centred.values[0]) or 1.0
    values = tuple(round(float(value) / largest, DIGITS) for value in centred.values)
    plain = spectrum(stream, centred=False).effective_rank()
    return Block(number, layer, *stream.shape, centred.effective_rank(), plain, values)


def shown(blocks: Sequence[Block]) -> str:
    """The table."""
    head = ["call", "layer", "width", "tokens", "effective rank, 95 %", "of the width", "without centring"]
    cells = [
        [
            str(one.call),
            str(one.layer),
            str(one.width),
            f"{one.tokens:,}",
            str(one.rank),
            f"{one.rank / one.width:.0%}",
            str(one.plain_rank),
        ]
        for one in blocks
    ]
    return table(head, cells)


def draw(path: Path, runs: Mapping[str, Sequence[Block]]) -> bool:
    """Ranks by depth of each run, and the spectra of the first run's blocks; False where there are none."""
    runs = {run: blocks for run, blocks in runs.items() if blocks}
    if not runs:
        return False
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure(figsize=(10.0, 3.8), dpi=150, layout="constrained")
        spectra, ranks = figure.subplots(1, 2)
        first = next(iter(runs.values()))
        shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.9, len(first)))
        for block, shade in zip(first, shades, strict=True):
            marked = block in (first[0], first[-1])
            label = f"call {block.call}" if marked else None
            spectra.plot(range(1, len(block.values) + 1), block.values, color=shade, linewidth=1.4, label=label)
        spectra.set_yscale("log")
        least = min(value for block in first for value in block.values if value > 0)
        spectra.set_ylim(max(least / 2, 1e-6), 1.5)
        spectra.set_xlabel("direction")
        title = "Singular values over the first" + (f", {next(iter(runs))}" if len(runs) > 1 else "")
        spectra.set_title(title, loc="left", fontsize=11.5, fontweight="bold", pad=10)
        spectra.legend(frameon=False, fontsize=9.5)
        for number, (run, blocks) in enumerate(runs.items()):
            color = plots.RUNS[number % len(plots.RUNS)]
            shares = [block.rank / block.width for block in blocks]
            calls = [block.call for block in blocks]
            ranks.plot(calls, shares, "o-", color=color, markersize=4.5, linewidth=1.6, label=run)
        ranks.set_ylim(0, 1.1 * max(block.rank / block.width for blocks in runs.values() for block in blocks) or 1.0)
        ranks.yaxis.set_major_formatter(PercentFormatter(1.0))
        ranks.xaxis.set_major_locator(MaxNLocator(integer=True))
        ranks.set_xlabel("call")
        ranks.set_title(
            "Effective rank at 95 % of the energy, of the width", loc="left", fontsize=11.5, fontweight="bold", pad=10
        )
        if len(runs) > 1:
            ranks.legend(frameon=False, fontsize=9.5)
        for axes in (spectra, ranks):
            axes.spines[["top", "right", "left"]].set_visible(False)
            axes.grid(axis="y", color=plots.GRID, linewidth=0.8)
            axes.tick_params(length=0, pad=6)
        temporary = path.with_name(f"{files.TEMPORARY}{path.name}")
        plots.write(figure, temporary)
        temporary.replace(path)
    return True
