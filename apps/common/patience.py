"""Ending a run whose validations no longer get better: how many of them one waits for, and what counts as better.

Looked at is the first there is of exact answers (more are better), bits per byte and loss (less is). An improvement within the
band counts as none; it is measured from the last one that counted, so that small ones add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from apps.common.recipe import StopConfig

MORE, LESS = ("val_exact",), ("val_bpb", "val_loss")
WAITED = "patience_waited"


def kept(config: StopConfig, before: Mapping[str, Any], scores: Mapping[str, Any]) -> dict[str, Any]:
    """The best that counts, under a name of its measure, and how many validations ago it was: to be kept with `scores`.

    `before` is what was kept with the validation before; {} without patience.
    """
    if config.patience is None:
        return {}
    name = next(name for name in (*MORE, *LESS) if name in scores)
    score = scores[name] if name in MORE else -scores[name]
    key = f"patience_{name}"
    best = before.get(key)
    better = best is None or score > best + config.band
    return {key: score if better else best, WAITED: 0 if better else before.get(WAITED, 0) + 1}


def ended(config: StopConfig, now: Mapping[str, Any]) -> str | None:
    """Why a run ends with what `kept` gave, None where it does not."""
    waited = now.get(WAITED, 0)
    if config.patience is None or waited < config.patience:
        return None
    band = f" by more than {config.band:g}" if config.band else ""
    return f"{waited} validations without a better one{band}"
