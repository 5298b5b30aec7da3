"""Ahead-of-time compilation of every kernel as it would be launched: `python -m tinykernels.compile_check`."""
