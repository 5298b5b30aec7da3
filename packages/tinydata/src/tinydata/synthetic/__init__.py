"""Text that we generate ourselves, the same bytes for the same seed everywhere."""
