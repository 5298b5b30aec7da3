"""How an answer becomes a score, one kind of answer a module."""
