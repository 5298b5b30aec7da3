"""`report.md`: one run told from its files, with its curves; written at the end of a run and by `apps/report`.

Everything is read from the run directory, so a report can be written at any time, of unfinished and damaged runs too.
It quotes the hash of every part of the data: numbers of runs on other data are other numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from apps.common import files, phases, plots, run_record
from apps.common.console import duration, size
from apps.common.data_config import TextData
from apps.common.plots import TRAIN, VALIDATION, Curve, Style
from apps.common.recipe import Recipe
from apps.common.run_record import RunRecord
from tinycore.config import dump
from tinycore.families import LOSS

HASH_DIGITS = 16
USAGE = "experts/usage/"
MIXTURE = "mixture/"


def write(run: Path) -> Path:
    """Write report.md, its plots and data.json into the run directory; the path of report.md."""
    record = run_record.read(run)
    if record.data is not None and not (run / run_record.DATA).exists():
        files.write_json(run / run_record.DATA, record.data)
    pictures = draw(record)
    files.write_text(run / "report.md", render(record, pictures))
    return run / "report.md"


def draw(record: RunRecord) -> list[tuple[str, str]]:
    """Draw what the run has values for into its directory; (file name, caption) of each picture of the report."""
    drawn = []
    loss = [
        _curve(record, "train", "loss", TRAIN, "smooth"),
        _curve(record, "validation", "val_loss", VALIDATION),
    ]
    if _any(loss):
        plots.draw(record.path / "loss.png", loss, "Loss (nats per token)", logarithmic=True)
        plots.draw(record.path / "curve.png", loss, "Loss (nats per token)", logarithmic=True, size=(6.4, 3.2))
        drawn.append(("loss.png", "training loss as logged (faint) and smoothed, and validation loss"))
    averaged = record.recipe.train.ema is not None
    bits = [_curve(record, "validation, averaged weights" if averaged else "validation", "val_bpb", VALIDATION)]
    if averaged:
        bits.append(_curve(record, "validation, raw weights", "raw_val_bpb", TRAIN))
    if _any(bits):
        plots.draw(record.path / "bits_per_byte.png", bits, "Validation bits per byte")
        drawn.append(("bits_per_byte.png", "validation bits per byte of text"))
    accuracy = [
        _curve(record, "train", "accuracy", TRAIN, "smooth"),
        _curve(record, "validation", "val_accuracy", VALIDATION),
    ]
    if _any(accuracy):
        plots.draw(record.path / "accuracy.png", accuracy, "Next-token accuracy", percent=True)
        drawn.append(("accuracy.png", "share of tokens that the model ranks first"))
    exact = [_curve(record, "puzzles", "val_exact", VALIDATION), _curve(record, "cells", "val_cells", TRAIN)]
    if _any(exact):
        plots.draw(record.path / "exact.png", exact, "Held-out puzzles solved, and cells right", percent=True)
        drawn.append(("exact.png", "share of the held-out puzzles whose every cell is right, and share of their cells"))
    parts = [_curve(record, name.removeprefix(LOSS), name, color, "smooth") for name, color in _colored(record, LOSS)]
    if _any(parts):
        plots.draw(record.path / "losses.png", parts, "Losses by name", logarithmic=True)
        drawn.append(("losses.png", "the losses whose sum is trained, each with its weight"))
    usage = [_curve(record, name.removeprefix(USAGE), name, color, "line") for name, color in _colored(record, USAGE)]
    if _any(usage):
        plots.draw(record.path / "experts.png", usage, "Use of the experts", percent=True)
        drawn.append(("experts.png", "share of the tokens that each expert computes, mean over the layers"))
    mixed = [
        _curve(record, name.removeprefix(MIXTURE), name, color, "line") for name, color in _colored(record, MIXTURE)
    ]
    if _any(mixed):
        plots.draw(record.path / "mixture.png", mixed, "Tokens learned from, by source")
        drawn.append(("mixture.png", "tokens of each source of the mixture that were learned from so far"))
    rate = _curve(record, "", "learning_rate", TRAIN, "line")
    norm = _curve(record, "", "grad_norm", TRAIN, "smooth")
    if _any([rate, norm]):
        panels = [("Learning rate", [rate]), ("Gradient norm before clipping", [norm])]
        plots.draw_stacked(record.path / "optimization.png", panels, size=(8.0, 5.2))
        drawn.append(("optimization.png", "learning rate and gradient norm"))
    return drawn


def render(record: RunRecord, pictures: Sequence[tuple[str, str]]) -> str:
    """The report as Markdown."""
    blocks = [f"# {record.name}", _summary(record), "## Result", table(("", ""), _results(record))]
    if pictures:
        blocks += ["## Curves", *(f"![{caption}]({name})\n\n*{caption}*" for name, caption in pictures)]
    blocks += ["## Recipe", table(("", ""), _recipe(record))]
    blocks += ["## Data", *_data(record)]
    blocks += ["## Speed and memory", table(("", ""), _speed(record))]
    blocks += ["## Environment", table(("", ""), _environment(record))]
    if record.last_samples():
        step, _, text = record.last_samples().partition("\n")
        config = record.recipe.sample
        note = f"At step {step.strip()}, temperature {config.temperature:g}, top-p {config.top_p:g}."
        if record.recipe.data.in_place:
            note = f"A held-out puzzle at step {step.strip()}."
        blocks += ["## Samples", note, text.strip("\n")]
    return "\n\n".join(blocks) + "\n"


def _summary(record: RunRecord) -> str:
    status = record.status.get("status", "unknown")
    steps = record.metrics[-1]["step"] if record.metrics else record.status.get("step", 0)
    lines = [record.recipe.description or "No description."]
    state = {
        "done": f"Finished after {steps:,} steps.",
        "running": f"Not finished: {steps:,} of {record.recipe.train.steps:,} steps so far.",
        "stopped": f"Stopped at step {steps:,} of {record.recipe.train.steps:,}; go on with "
        f"`uv run apps/pretrain --resume {record.path}`.",
        "failed": f"Failed after step {steps:,} of {record.recipe.train.steps:,}.",
    }
    lines.append(state.get(status, f"Status {status}, {steps:,} steps."))
    if record.damaged:
        lines.append(
            f"{record.damaged} log line{'s' if record.damaged > 1 else ''} could not be read and are left out."
        )
    return "\n".join(lines)


def _results(record: RunRecord) -> list[tuple[str, str]]:
    rows = [("parameters", f"{record.parameters:,}")]
    if record.metrics:
        tokens = record.metrics[-1].get("tokens", 0)
        rows.append(("tokens trained on", f"{tokens:,} ({tokens / record.parameters:.1f} a parameter)"))
    for name, label, form in (
        ("val_bpb", "validation bits per byte", ".4f"),
        ("raw_val_bpb", "validation bits per byte of the weights before averaging", ".4f"),
        ("val_loss", "validation loss", ".4f"),
        ("train_loss", "loss on trained rows, same measure", ".4f"),
        ("gap", "gap (validation - trained)", "+.4f"),
        ("val_accuracy", "validation accuracy", ".2%"),
        ("val_exact", "held-out puzzles solved", ".2%"),
        ("raw_val_exact", "held-out puzzles solved by the weights before averaging", ".2%"),
        ("val_cells", "cells of held-out puzzles right", ".2%"),
        ("accuracy", "training accuracy, last line", ".2%"),
        ("loss", "training loss, last line", ".4f"),
    ):
        value = record.last(name)
        if value is not None:
            rows.append((label, format(value, form)))
    for name, label in (
        ("skipped", "steps skipped, not finite"),
        ("rollback", "times gone back"),
        ("spike", "loss spikes"),
    ):
        found = record.series(name)[1]
        count = len(found) if name == "spike" else int(max(found, default=0))
        if count:
            rows.append((label, str(count)))
    best = record.status.get("best")
    if isinstance(best, dict) and "val_bpb" in best:
        raw = f" with averaged weights, {best['raw_val_bpb']:.4f} without" if "raw_val_bpb" in best else ""
        rows.append(("best checkpoint", f"step {best.get('step'):,}, {best['val_bpb']:.4f} bits per byte{raw}"))
    return rows


def _recipe(record: RunRecord) -> list[tuple[str, str]]:
    recipe = record.recipe
    model, train, optim = recipe.model, recipe.train, recipe.optim
    layers, calls = len(model.flat_layers()), len(model.call_sites())
    mixers = ", ".join(dict.fromkeys(layer.mixer.kind for layer in model.flat_layers() if layer.mixer))
    return [
        (
            "model",
            f"{layers} layers ({mixers})" + (f", {calls} calls" if calls != layers else "") + f", {model.dim} wide",
        ),
        ("vocabulary", f"{model.vocab_size:,} tokens"),
        ("batch", f"{train.batch_size} sequences of {recipe.data.positions} tokens{_at_first(recipe)}"),
        ("optimizer", f"{optim.kind}, learning rate {optim.learning_rate:g}, {optim.schedule.kind} schedule"),
        ("seed", str(train.seed)),
        ("precision", train.precision),
        ("every value", "[recipe.yaml](recipe.yaml)"),
        ("again", f"`uv run apps/pretrain --recipe {record.path / 'recipe.yaml'} --out runs/again`"),
    ]


def _at_first(recipe: Recipe) -> str:
    said = phases.said(recipe)
    return f"; at first {said}" if said else ""


def _data(record: RunRecord) -> list[str]:
    manifest = record.data
    if manifest is None:
        data = record.recipe.data
        if isinstance(data, TextData):
            return [f"The data's manifest is no longer in `{data.cache}`."]
        return [table(("", ""), [(name.replace("_", " "), str(value)) for name, value in dump(data).items()])]
    parts = [
        (
            name,
            f"{part['documents']:,}",
            size(part["bytes"]),
            str(part["licence"]),
            f"`{part['sha256'][:HASH_DIGITS]}`",
        )
        for name, part in manifest["parts"].items()
    ]
    splits = [
        (
            name,
            f"{split['documents']:,}",
            f"{split['tokens']:,}",
            size(split["bytes"]),
            f"`{split['sha256'][:HASH_DIGITS]}`",
        )
        for name, split in manifest["splits"].items()
    ]
    tokenizer = manifest["tokenizer"]
    blocks = [
        table(("part", "documents", "text", "licence", "sha256"), parts),
        table(("split", "documents", "tokens", "text", "sha256"), splits),
        f"Text `{manifest['text_sha256'][:HASH_DIGITS]}`, "
        f"tokenizer `{tokenizer['sha256'][:HASH_DIGITS]}` ({tokenizer['vocab_size']:,} tokens). "
        "Bits per byte of two runs compare where text and splits are the same, losses only where the tokenizer is too.",
    ]
    if manifest.get("skipped"):
        left_out = "; ".join(
            f"{name}: " + ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
            for name, reasons in manifest["skipped"].items()
        )
        blocks.append(f"Left out: {left_out}.")
    return blocks


def _speed(record: RunRecord) -> list[tuple[str, str]]:
    found = record.speed()
    rows = [("time", duration(found["seconds"]))]
    if "tokens_per_second" in found:
        rows.append(("tokens per second", f"{found['tokens_per_second']:,.0f}"))
    if "mfu" in found:
        peak = next((row["mfu_peak"] for row in record.timing if "mfu_peak" in row), "")
        rows.append(("model FLOPs utilisation", f"{found['mfu']:.1%}" + (f" of the peak ({peak})" if peak else "")))
    if "loader_wait" in found:
        rows.append(("waiting for data", f"{found['loader_wait']:.2%} of the time"))
    return [*rows, ("largest memory", size(found["memory_bytes"]))]


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    rows = [(str(name), str(value)) for name, value in record.environment.items()]
    events = [event for event in record.status.get("lineage", []) if isinstance(event, dict)]
    rows += [(str(event.get("event")), _event(event)) for event in events]
    return rows or [("", "not recorded")]


def _event(event: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.items() if name != "event" and value)


def _curve(record: RunRecord, name: str, metric: str, color: str, style: Style = "points") -> Curve:
    tokens, values = record.series(metric)
    return Curve(name, tokens, values, color, style)


def _colored(record: RunRecord, prefix: str) -> list[tuple[str, str]]:
    """The metrics whose name begins with `prefix`, in order, each with a colour of its own while there are any left."""
    names = sorted({name for row in record.metrics for name in row if name.startswith(prefix)})
    return [(name, plots.RUNS[index % len(plots.RUNS)]) for index, name in enumerate(names)]


def _any(curves: Iterable[Curve]) -> bool:
    return any(len(curve.values) for curve in curves)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; what could end a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )
