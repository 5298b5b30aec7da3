"""Controlled comparison of variants of one model: `uv run apps/ablate --help`."""
