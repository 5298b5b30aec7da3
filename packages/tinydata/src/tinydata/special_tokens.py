"""Names of the special tokens a tokenizer is trained with, and the names others use for their document separator.

These are defaults for training only. Whoever needs a tag later reads it from the tokenizer (`Tokenizer.special`): a
foreign tokenizer has other names, and a constant would silently encode to several ordinary tokens there.
"""

from __future__ import annotations

# Ids 0.. in this order. The first one separates documents; <state> separates the states of a state-passing trace.
SPECIAL_TOKENS: tuple[str, ...] = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<calc>",
    "</calc>",
    "<code>",
    "</code>",
    "<search>",
    "</search>",
    "<result>",
    "</result>",
    "<note>",
    "</note>",
    "<state>",
)

# Tried in this order on a tokenizer that does not say which of its tokens ends a document: GPT-2, GPT-NeoX, SmolLM2,
# Phi, Qwen; Llama 1-2 and Mistral; Llama 3.
DOCUMENT_SEPARATORS: tuple[str, ...] = ("<|endoftext|>", "</s>", "<|end_of_text|>")
