"""What is looked at on the model itself, not by questions: costs of use and spectra, kept on disk with the checkpoint's hash.

RUN/evaluation/model.json     {"format": 1, "asked": {checkpoint, device}, "cost": {...} | null, "spectra": [...]}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from apps.common import files
from apps.common.errors import RunError
from apps.evaluate import costs, spectra
from apps.evaluate.costs import Cost
from apps.evaluate.spectra import Block
from apps.evaluate.subject import Subject

FORMAT = 1
FILE = "model.json"


@dataclass(frozen=True)
class Measures:
    """cost: None for a model that answers in place and generates nothing."""

    cost: Cost | None
    blocks: tuple[Block, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain data, singular values left out."""
        blocks = [{name: value for name, value in one.to_dict().items() if name != "values"} for one in self.blocks]
        return {"cost": None if self.cost is None else self.cost.to_dict(), "spectra": blocks}


def of(subject: Subject) -> Measures:
    """What was measured before on this checkpoint and kind of device, or is now."""
    path = subject.where.directory / FILE
    asked = {"checkpoint": subject.where.sha256, "device": next(subject.decoder.parameters()).device.type}
    found = _read(path, asked)
    if found is None:
        cost = costs.measure(subject.decoder) if subject.decoder.config.causal else None
        found = Measures(cost, tuple(spectra.measure(subject.decoder, subject.rows())))
        document = {
            "format": FORMAT,
            "asked": asked,
            "cost": None if cost is None else cost.to_dict(),
            "spectra": [one.to_dict() for one in found.blocks],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_json(path, document)
    return found


def _read(path: Any, asked: dict[str, Any]) -> Measures | None:
    if not path.is_file():
        return None
    try:
        document = files.read_json(path)
        if document.get("asked") != asked or document.get("format") != FORMAT:
            return None
        cost = None if document["cost"] is None else Cost(**document["cost"])
        return Measures(cost, tuple(Block.from_dict(one) for one in document["spectra"]))
    except (RunError, KeyError, TypeError):
        return None  # damaged: it is measured again
