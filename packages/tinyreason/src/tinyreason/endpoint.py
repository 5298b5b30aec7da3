"""A generator behind HTTP: any server that speaks OpenAI's completions or chat completions (vLLM, llama.cpp, Ollama, ours).

Of the standard library alone. What a server sends is a stranger's: answers are bounded in size and time and checked field by
field; a request that fails, after `retries` more tries where that can help, is a completion with finish "error".
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tinyreason.completion import Completion, Finish

MAX_ANSWER_BYTES = 2**24
WORTH_ANOTHER_TRY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})


class EndpointError(ValueError):
    """Why a server cannot be asked, in one line."""


@dataclass
class Endpoint:
    """url: up to and including /v1. key: sent as a bearer token, never logged. parallel: requests at a time. `errors` holds why
    the latest requests failed.

    chat: ask for chat completions, where the prompt is the user's message, and with it what an answer with tools has so far;
    a server of plain completions continues such an answer better.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    chat: bool = False
    timeout: float = 120.0
    retries: int = 2
    parallel: int = 4
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise EndpointError(f"{self.url}: an endpoint begins with http:// or https://")

    def generate(
        self, prompts: list[str], *, n: int, max_tokens: int, temperature: float, stop: Sequence[str], seed: int
    ) -> list[list[Completion]]:
        """As `Generator.generate`. Each of the n is asked for by itself, with seed, seed + 1, ...: not all servers know `n`."""
        asked = [(prompt, seed + sample) for prompt in prompts for sample in range(n)]
        self.errors = []

        def one(item: tuple[str, int]) -> Completion:
            return self._complete(item[0], item[1], max_tokens, temperature, list(stop))

        with ThreadPoolExecutor(max(1, min(self.parallel, len(asked)))) as pool:
            found = list(pool.map(one, asked))
        return [found[first : first + n] for first in range(0, len(found), n)]

    def _complete(self, prompt: str, seed: int, max_tokens: int, temperature: float, stop: list[str]) -> Completion:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            **({"stop": stop} if stop else {}),
            **({"messages": [{"role": "user", "content": prompt}]} if self.chat else {"prompt": prompt}),
        }
        try:
            return _completion(self._post("chat/completions" if self.chat else "completions", body), stop)
        except EndpointError as error:
            self.errors.append(str(error))
            return Completion("", finish="error")

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        address = f"{self.url.rstrip('/')}/{path}"
        request = urllib.request.Request(address, json.dumps(body).encode(), headers, method="POST")
        for attempt in range(self.retries + 1):
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as answer:
                    content = answer.read(MAX_ANSWER_BYTES + 1)
                break
            except urllib.error.HTTPError as error:
                reason, again = f"{error.code} {error.reason}", error.code in WORTH_ANOTHER_TRY
            except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
                reason, again = str(getattr(error, "reason", error)) or type(error).__name__, True
            if not again or attempt == self.retries:
                raise EndpointError(f"{address}: {reason}")
            time.sleep(min(0.5 * 2**attempt, 8.0))
        if len(content) > MAX_ANSWER_BYTES:
            raise EndpointError(f"{address}: answered with more than {MAX_ANSWER_BYTES >> 20} MiB")
        try:
            return json.loads(content)
        except (ValueError, RecursionError):
            raise EndpointError(f"{address}: answered with something that is no JSON") from None


def _completion(answer: Any, stop: list[str]) -> Completion:
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if not isinstance(text, str):
        raise EndpointError("the server's answer has no text in it")
    # some servers leave the stop string in
    cuts = [at for at in (text.find(one) for one in stop) if at >= 0]
    usage = answer.get("usage")
    tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    finish: Finish = "length" if choice.get("finish_reason") == "length" and not cuts else "stop"
    if not isinstance(tokens, int) or tokens < 0:
        tokens = -(-len(text.encode()) // 4)  # not told: about four bytes each
    return Completion(text[: min(cuts)] if cuts else text, tokens, finish)
