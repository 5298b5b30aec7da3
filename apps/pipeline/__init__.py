"""Several stages as one recipe, each resumable: `uv run apps/pipeline --help`."""
