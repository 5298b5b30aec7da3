"""trainable and alive: the loss reaches every tensor, and every entry of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinycore import objectives
from tinycore.model import build
from tinycore.model_config import ModelConfig
from tinycore.testing.probes import awake, require, rows_for

BATCHES = 8


def trainable(config: ModelConfig) -> None:
    """Every tensor receives a finite gradient, and one that is not zero, in at least one of 8 batches."""
    for name, reached in _reached(config).items():
        require(bool(reached.any()), f"trainable: '{name}' never receives a gradient")


def alive(config: ModelConfig) -> None:
    """Every single entry of every tensor receives a gradient that is not zero in at least one of 8 batches.

    Entries that are there for a published count only are listed by the module that owns them, `dead_entries()` ->
    {parameter's name: bool mask of its shape}; exactly those never receive one.
    """
    listed = listed_dead(build(config))
    for name, reached in _reached(config).items():
        expected = listed.get(name, torch.zeros_like(reached))
        dead, woken = int((~reached & ~expected).sum()), int((reached & expected).sum())
        require(dead == 0, f"alive: {dead} of {reached.numel()} entries of '{name}' never receive a gradient")
        require(woken == 0, f"alive: {woken} entries of '{name}' are listed as dead and receive a gradient")


def listed_dead(model: nn.Module) -> dict[str, Tensor]:
    """The masks of `dead_entries` of all modules, by the parameters' full names."""
    found: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        entries = getattr(module, "dead_entries", None)
        if entries is not None:
            found |= {f"{path}.{name}": mask for name, mask in entries().items()}
    return found


def _reached(config: ModelConfig) -> dict[str, Tensor]:
    """Per parameter, which entries received a non-zero gradient; all gradients are held to be finite."""
    model = awake(config).train()
    reached = {name: torch.zeros_like(parameter, dtype=torch.bool) for name, parameter in model.named_parameters()}
    for seed in range(BATCHES):
        rows = rows_for(config, 4, 32, seed)
        model.zero_grad()
        losses, _ = next(objectives.of(config)(model, rows.tokens, rows.answers(config), rows.doc_ids))
        torch.stack([total / count.clamp(min=1) for total, count in losses.values()]).sum().backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                require(
                    bool(parameter.grad.isfinite().all()),
                    f"trainable: the gradient of '{name}' is not finite",
                )
                reached[name] |= parameter.grad != 0
    return reached
