"""Several runs over each other: curves by tokens, one table, and whether their numbers may be compared at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from apps.common import files, plots
from apps.common.data_config import TextData
from apps.common.plots import RUNS, Curve
from apps.common.report import table
from apps.common.run_record import RunRecord
from tinycore.config import dump

COLUMNS = ("run", "parameters", "steps", "tokens", "val bpb", "val loss", "gap", "tok/s", "text", "tokenizer")


def write(records: Sequence[RunRecord], directory: Path) -> Path:
    """Write comparison.md and its plots into `directory`; the path of comparison.md."""
    directory.mkdir(parents=True, exist_ok=True)
    labels = names(records)
    heading = "# " + " and ".join(labels)
    blocks = [heading, *(f"**{note}**" for note in caveats(records)), table(COLUMNS, rows(records))]
    for metric, title, file in (
        ("val_bpb", "Validation bits per byte", "comparison_bits_per_byte.png"),
        ("val_exact", "Held-out puzzles or problems solved", "comparison_exact.png"),
        ("val_loss", "Validation loss (nats per token)", "comparison_validation_loss.png"),
        ("loss", "Training loss (nats per token), smoothed", "comparison_training_loss.png"),
    ):
        curves = [
            Curve(
                label,
                *record.series(metric),
                color=RUNS[index % len(RUNS)],
                style="smooth" if metric == "loss" else "points",
            )
            for index, (label, record) in enumerate(zip(labels, records, strict=True))
        ]
        if any(len(curve.values) for curve in curves):
            share = metric == "val_exact"
            plots.draw(directory / file, curves, title, logarithmic="loss" in metric, percent=share)
            blocks.append(f"![{title}]({file})")
    files.write_text(directory / "comparison.md", "\n\n".join(blocks) + "\n")
    return directory / "comparison.md"


def names(records: Sequence[RunRecord]) -> list[str]:
    """A name for each run that no other has: the directory's, with as many parents as it takes."""
    found = [record.path.resolve() for record in records]
    depth = 1
    while depth < 8 and len({path.parts[-depth:] for path in found}) < len(set(found)):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in found]


def caveats(records: Sequence[RunRecord]) -> list[str]:
    """What keeps the runs' numbers from being compared, one sentence each; empty where nothing does."""
    found = []
    manifests = [record.data for record in records]
    if not any(isinstance(record.recipe.data, TextData) for record in records):
        if len({str(dump(record.recipe.data)) for record in records}) > 1:
            found.append("The runs learned from or were scored on different data.")
    elif any(manifest is None for manifest in manifests):
        found.append("The data of at least one run is not recorded: whether the runs compare cannot be said.")
    known = [manifest for manifest in manifests if manifest is not None]
    if len({(m["text_sha256"], str(sorted(m["split_shares"].items()))) for m in known}) > 1:
        found.append(
            "The runs learned from and were scored on different text: only bits per byte come near to comparing."
        )
    elif len({m["tokenizer"]["sha256"] for m in known}) > 1:
        found.append("The tokenizers differ: losses and accuracies do not compare, bits per byte do.")
    if len({record.recipe.train.validate_rows * record.recipe.data.positions for record in records}) > 1:
        found.append("The runs validate on different numbers of tokens: small differences mean nothing.")
    return found


def rows(records: Sequence[RunRecord]) -> list[tuple[str, ...]]:
    """`COLUMNS` of each run; hashes by their first digits."""
    found = []
    for label, record in zip(names(records), records, strict=True):
        last = record.metrics[-1] if record.metrics else {}
        speed = record.speed().get("tokens_per_second")
        manifest = record.data
        found.append(
            (
                label,
                f"{record.parameters:,}",
                f"{last.get('step', 0):,}",
                f"{last.get('tokens', 0):,}",
                *(_number(record.last(name)) for name in ("val_bpb", "val_loss", "gap")),
                "-" if speed is None else f"{speed:,.0f}",
                f"{manifest['text_sha256'][:8]}" if manifest else "-",
                f"{manifest['tokenizer']['sha256'][:8]}" if manifest else "-",
            )
        )
    return found


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
