"""Puzzles answered in place: `uv run apps/puzzle --help`."""
