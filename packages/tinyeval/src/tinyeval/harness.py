"""lm-eval both ways: our models in its tasks, its models in ours (the library is looked for only when this is used).

    to_lm_eval(model)      an `lm_eval.api.model.LM`; pass it to `lm_eval.simple_evaluate(model=...)`
    from_lm_eval(lm)       a `LanguageModel`; pass it to `tinyeval.evaluate`

Log-likelihoods pass through unchanged, so the same items score the same by both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from tinyeval.items import Unavailable
from tinyeval.model import LanguageModel, Likelihood, Pair

DEFAULT_TOKENS = 256  # lm-eval's own max_gen_toks
_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


def to_lm_eval(model: LanguageModel) -> Any:
    """``model`` as an lm-eval model. Raises Unavailable without lm-eval.

    Its generate_until raises ValueError for settings that ask for sampling: these models write greedily.
    """
    base: Any = _lm_eval("lm_eval.api.model").LM

    class Adapted(base):
        def loglikelihood(self, requests: list[Any]) -> list[Likelihood]:
            return model.loglikelihood([_pair(request) for request in requests])

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            return model.loglikelihood_rolling([request.args[0] for request in requests])

        def generate_until(self, requests: list[Any]) -> list[str]:
            return _generated(model, [request.args for request in requests])

    return Adapted()


def from_lm_eval(lm: Any) -> LanguageModel:
    """An lm-eval model as a `LanguageModel`. Raises Unavailable without lm-eval."""
    return _FromLmEval(lm)


class _FromLmEval:
    def __init__(self, lm: Any) -> None:
        self._lm = lm
        self._instance = _lm_eval("lm_eval.api.instance").Instance

    def loglikelihood(self, pairs: Sequence[Pair]) -> list[Likelihood]:
        found = self._lm.loglikelihood(self._requests("loglikelihood", pairs))
        return [(float(nats), bool(greedy)) for nats, greedy in found]

    def loglikelihood_rolling(self, texts: Sequence[str]) -> list[float]:
        found = self._lm.loglikelihood_rolling(self._requests("loglikelihood_rolling", [(text,) for text in texts]))
        # some models return (ln p,) as the docstring of lm-eval says, most a number as its metrics expect
        return [float(one[0] if isinstance(one, tuple) else one) for one in found]

    def generate_until(self, prompts: Sequence[str], until: Sequence[str], max_tokens: int) -> list[str]:
        settings = {"until": list(until), "max_gen_toks": max_tokens, "do_sample": False, "temperature": 0.0}
        return self._lm.generate_until(
            self._requests("generate_until", [(prompt, dict(settings)) for prompt in prompts])
        )

    def _requests(self, kind: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        return [
            self._instance(request_type=kind, doc={}, arguments=tuple(one), idx=index)
            for index, one in enumerate(arguments)
        ]


def _pair(request: Any) -> Pair:
    context, continuation = request.args
    return context, continuation


def _generated(model: LanguageModel, asked: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Requests with equal settings together, the answers in the order asked."""
    alike: dict[tuple[tuple[str, ...], int], list[int]] = {}
    for index, (_, settings) in enumerate(asked):
        alike.setdefault(_settings(settings), []).append(index)
    written = [""] * len(asked)
    for (until, length), indices in alike.items():
        texts = model.generate_until([asked[index][0] for index in indices], until, length)
        for index, text in zip(indices, texts, strict=True):
            written[index] = text
    return written


def _settings(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    # lm-eval's temperature without do_sample is a left-over of its defaults, not a wish to sample
    if settings.get("do_sample") and settings.get("temperature", 1.0) > 0:
        raise ValueError(f"this model writes greedily; the task asks for sampling: {dict(settings)}")
    until = settings.get("until") or ()
    length = next((settings[name] for name in _LENGTHS if settings.get(name) is not None), DEFAULT_TOKENS)
    return ((until,) if isinstance(until, str) else tuple(until)), int(length)


def _lm_eval(module: str) -> ModuleType:
    try:
        import_module("lm_eval")  # by its name in full, so that what this package imports can be read from its source
        return import_module(module)
    except ImportError as error:
        raise Unavailable(f"this takes lm-eval ({error.name} is missing); pip install lm-eval") from None
