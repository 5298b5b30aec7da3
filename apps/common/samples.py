"""Samples taken while training, as Markdown: the same prompts and the same draws each time, so that they compare."""

from __future__ import annotations

import tinycore
import tinydata
from apps.common import tool_use
from apps.common.recipe import SampleConfig
from apps.common.run_directory import sample_heading
from tinycore import Decoder
from tinyreason import Toolbox


class Sampler:
    """Continues a recipe's prompts."""

    def __init__(
        self, config: SampleConfig, tokenizer: tinydata.Tokenizer, seed: int, toolbox: Toolbox | None = None
    ) -> None:
        """toolbox: answers calls that samples make."""
        self.config, self.tokenizer, self.seed, self.toolbox = config, tokenizer, seed, toolbox

    def __call__(self, model: Decoder, step: int) -> str:
        """The section of samples.md for `step`: prompt and continuation as an indented block each."""
        end = self.tokenizer.end_id
        longest = model.config.max_seq_len - 1
        prompts = [[end, *self.tokenizer.encode(prompt)][:longest] for prompt in self.config.prompts]
        found = tinycore.generate(
            model,
            prompts,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            stop=[end],
            seed=self.seed,
            hooks=[] if self.toolbox is None else [tool_use.session(self.toolbox, self.tokenizer)],
        )
        blocks = [self._block(prompt, generations[0].ids) for prompt, generations in zip(prompts, found, strict=True)]
        return "\n".join([sample_heading(step), *blocks])

    def _block(self, prompt: list[int], new: list[int]) -> str:
        # a model may have rows for more tokens than its tokenizer has
        ids = [i for i in [*prompt, *new] if i != self.tokenizer.end_id and i < self.tokenizer.vocab_size]
        # indented, no line of a sample can be taken for a heading of the file
        return "".join(f"    {line}\n" for line in self.tokenizer.decode(ids).splitlines() or [""])
