"""Import a model that others trained: `uv run apps/import --help`."""
