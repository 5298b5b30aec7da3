"""What is made equal between a variant and plain, beside seeds, data and order: the budget that a comparison is for.

    tokens       the same text: steps x rows x tokens x bytes of text a token, which is steps alone where both cut the text
                 into the same tokens
    flops        the same matrix products: steps = plain's x plain's FLOPs a step / the variant's
    parameters   as tokens, and a knob of the variant's shape is turned until it has plain's parameters, within 1 %
    bytes        as parameters, of the bytes that the weights take when stored: ternary ones two bits, all others bfloat16
    wall_clock   the same time: steps = plain's x plain's seconds a step / the variant's, as measured in short cells

A knob is turned in stages, coarse to fine: each names keys and the step of each, {model.dim: 8, model.layers.0.ffn.hidden: 21}.
The number of steps is the largest that plain's count leaves room for, the last stage's the nearest. The embedding's scale
follows the width where it is the width's root, as in the demo. The schedule follows the steps: its warmup keeps its share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

import tinycore
from apps.common.errors import BadRequest
from apps.common.recipe import Recipe
from apps.common.variants import Arm, Knob, Match
from tinycore.linears.bit import Bit

TOLERANCE = 0.01
MOST_TURNS = 8192  # of a knob


def with_steps(arm: Arm, steps: int) -> Arm:
    """`arm` trained for `steps`, its warmup the same share of them."""
    if steps == arm.recipe.train.steps:
        return arm
    warmup = round(arm.recipe.optim.schedule.warmup * steps / arm.recipe.train.steps)
    return arm.changed({"train.steps": steps, "optim.schedule.warmup": warmup})


def turned(arm: Arm, plain: Arm) -> Arm:
    """`arm` with its shape turned to plain's parameters or bytes, where it is matched by these."""
    if arm.match not in ("parameters", "bytes") or arm is plain:
        return arm
    size = parameters if arm.match == "parameters" else stored_bytes
    target, found = size(plain.recipe), arm
    if not arm.knob and _apart(size(arm.recipe), target) > TOLERANCE:
        raise BadRequest(f"{arm.name}: is to have plain's {arm.match}, and the table names no knob to turn for it")
    for stage, keys in enumerate(arm.knob, 1):
        found = _turn(found, keys, size, target, nearest=stage == len(arm.knob))
    there = size(found.recipe)
    if _apart(there, target) > TOLERANCE:
        raise BadRequest(
            f"{arm.name}: cannot be matched by {arm.match}: {_names(arm.knob)} gives {there:,} at best, and plain has "
            f"{target:,}"
        )
    return found


def paced(arm: Arm, plain: Arm, bytes_a_token: Callable[[Arm], float]) -> Arm:
    """`arm` with the steps of the same text or FLOPs as plain's. `bytes_a_token`: of the text an arm is trained on."""
    if arm is plain:
        return arm
    ours, theirs = tokens_a_step(arm.recipe), tokens_a_step(plain.recipe)
    if arm.match == "flops":
        ours, theirs = ours * flops_a_token(arm.recipe), theirs * flops_a_token(plain.recipe)
    elif (arm.recipe.data, ours) != (plain.recipe.data, theirs):
        ours, theirs = ours * bytes_a_token(arm), theirs * bytes_a_token(plain)
    return with_steps(arm, _steps(arm, plain.recipe.train.steps * theirs / ours))


def timed(arm: Arm, plain: Arm, rate: float, plain_rate: float) -> Arm:
    """`arm` with the steps of the same time as plain's, at so many tokens a second each."""
    seconds = plain.recipe.train.steps * tokens_a_step(plain.recipe) / plain_rate
    return with_steps(arm, _steps(arm, seconds * rate / tokens_a_step(arm.recipe)))


def _steps(arm: Arm, steps: float) -> int:
    if not 1 <= steps < 1e9:
        raise BadRequest(f"{arm.name}: cannot be matched by {arm.match}: plain's budget is {steps:.2g} of its steps")
    return round(steps)


def parameters(recipe: Recipe) -> int:
    """Of the whole model."""
    return tinycore.count(recipe.model).parameters


def stored_bytes(recipe: Recipe) -> int:
    """Bytes of the weights as `tinycore.surgery.pack` stores ternary ones, and bfloat16 the others."""
    with torch.device("meta"):
        model = tinycore.build(recipe.model)
    ternary = [module for module in model.modules() if isinstance(module, Bit)]
    # a row of codes is whole bytes; a scale a matrix
    packed = sum(module.out_features * -(-module.in_features // 4) + 4 for module in ternary)
    rest = sum(parameter.numel() for parameter in model.parameters()) - sum(each.weight.numel() for each in ternary)
    return packed + 2 * rest


def tokens_a_step(recipe: Recipe) -> int:
    """Rows times their length."""
    return recipe.train.batch_size * recipe.data.positions


def flops_a_token(recipe: Recipe) -> float:
    """Matrix products, forward and backward."""
    return tinycore.count(recipe.model).flops_per_token(recipe.data.positions)


def _turn(arm: Arm, keys: dict[str, int], size: Callable[[Recipe], int], target: int, nearest: bool) -> Arm:
    """The arm with the most turns of `keys` that leave it within `target`, or the nearest to it."""

    def at(turns: int) -> Arm:
        changes: dict[str, Any] = {key: turns * step for key, step in keys.items()}
        width, scale = arm.recipe.model.dim, getattr(arm.recipe.model.embed, "scale", 0.0)
        if "model.dim" in changes and math.isclose(scale, math.sqrt(width), rel_tol=0.01):
            changes["model.embed.scale"] = round(math.sqrt(changes["model.dim"]), 1)
        try:
            return arm.changed(changes)
        except ValueError as error:
            raise BadRequest(f"{arm.name}: cannot be matched by {arm.match}: {error}") from None

    if size(at(1).recipe) > target:
        return at(1)
    low, high = 1, 2
    while size(at(high).recipe) <= target:
        low, high = high, 2 * high
        if high > MOST_TURNS:
            raise BadRequest(f"{arm.name}: cannot be matched by {arm.match}: {', '.join(keys)} hardly changes it")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(at(middle).recipe) <= target else (low, middle)
    return min((at(low), at(high)), key=lambda each: abs(size(each.recipe) - target)) if nearest else at(low)


def _apart(ours: int, theirs: int) -> float:
    return abs(ours - theirs) / theirs


def _names(knob: Knob) -> str:
    return " then ".join(", ".join(stage) for stage in knob)


def rematched(arm: Arm, by: Match | None) -> Arm:
    """`arm` matched by what a command line says instead of its table, where it says it."""
    return arm if by is None else replace(arm, match=by)
