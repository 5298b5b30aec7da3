"""A verifier for a generator: sampled, labelled by execution, trained, and measured: `uv run apps/verify --help`."""
