"""Data made ready, counted and shown: `uv run apps/prepare --help`."""
