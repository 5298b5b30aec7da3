"""Ask a trained model, see how it comes to its answer: `uv run apps/reason --help`."""
