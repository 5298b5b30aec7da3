"""`uv run apps/puzzle`: training, by the session that trains everything."""

from __future__ import annotations

from apps.common import command_line
from apps.common.errors import BadRequest
from apps.pretrain.__main__ import carry_out

RECIPE = "trm-sudoku-4x4"


def run(arguments: list[str]) -> int:
    """Train what `arguments` ask for; the exit status."""
    request = command_line.parse("puzzle", arguments, RECIPE)
    if not request.recipe.data.in_place:
        raise BadRequest(f"recipe {request.recipe_name}: learns text, not puzzles; use uv run apps/pretrain")
    return carry_out(request, "apps.puzzle", arguments)
