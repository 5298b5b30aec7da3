"""Train a model from text: `uv run apps/pretrain --help`."""
