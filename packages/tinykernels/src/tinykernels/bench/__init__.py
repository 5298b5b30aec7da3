"""Correctness, then time, of every operation at tiny-model shapes: `python -m tinykernels.bench`."""
