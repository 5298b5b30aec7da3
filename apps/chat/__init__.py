"""Talk to a trained model: `uv run apps/chat --help`."""
