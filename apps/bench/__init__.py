"""Measurements of this project on this machine: `uv run apps/bench --help`."""
