"""How a row of a published dataset becomes items: one function a format, each in the form its hub repository has.

A format gets the row as a mapping and an id to begin with, and returns the items in it. It raises KeyError for a column that
is not there and ValueError for a value that cannot be; `sources` makes one line of either.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from tinyeval.formats.answers import gsm8k, human_eval, items, lambada, text
from tinyeval.formats.choices import (
    arc,
    blimp,
    hellaswag,
    hellaswag_plain,
    mmlu_cot,
    piqa,
    winogrande,
    winogrande_whole,
)
from tinyeval.items import Item

Format = Callable[[Mapping[str, Any], str], list[Item]]
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "arc": arc,
        "blimp": blimp,
        "gsm8k": gsm8k,
        "hellaswag": hellaswag,
        "hellaswag_plain": hellaswag_plain,
        "human_eval": human_eval,
        "items": items,
        "lambada": lambada,
        "mmlu_cot": mmlu_cot,
        "piqa": piqa,
        "text": text,
        "winogrande": winogrande,
        "winogrande_whole": winogrande_whole,
    }
)

__all__ = ["FORMATS", "Format"]
