"""Scores of trained models on unseen problems: `uv run apps/evaluate --help`."""
