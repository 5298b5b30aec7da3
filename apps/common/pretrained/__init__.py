"""Models that others trained: a directory as transformers writes it, or a GGUF file, as a run of ours."""
