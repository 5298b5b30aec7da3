"""Reports of runs: `uv run apps/report --help`."""
