"""What N samples are worth: accuracy by the way one of them is chosen, as a mean over problems with its standard error.

    oracle      the best of N, if one knew: pass@N, without bias from all samples
    majority    the answer that most of the N give
    verifier    the answer that the verifier thinks most of
    weighted    the answer with the largest sum of the verifier's scores
    executed    majority among the answers whose computations hold when they are done again

For N below the number of samples the others are means over random choices of N of them, the same choices for all.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.common.markdown import table
from apps.verify.sampling import Sampled
from tinyreason import Answers, Completion, ExecutionVerifier
from tinyreason.test_time import Best, Candidate, Filtered, Majority, Selector, mean_pass_at_k

CHOICES = 16  # random choices of N samples that a problem's accuracy is the mean of


@dataclass(frozen=True)
class Point:
    """Accuracy at N samples, by one way of choosing."""

    way: str
    n: int
    accuracy: float
    error: float


class _Known:
    """Scores that were computed before, by the text of a completion."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores

    def score(self, prompt: str, completions: list[Completion]) -> list[float]:
        return [self.scores[completion.text] for completion in completions]


def curves(
    sampled: Sequence[Sampled],
    scores: Sequence[Sequence[float]] | None,
    numbers: Sequence[int],
    executed: ExecutionVerifier,
    told: Callable[[], None] = lambda: None,
) -> list[Point]:
    """The points; scores: the verifier's of each answer to each problem, None without a verifier."""
    most = min(len(row.texts) for row in sampled)
    numbers = sorted({n for n in numbers if n <= most})
    shares: dict[tuple[str, int], list[float]] = {}
    for index, row in enumerate(sampled):
        completions = [Completion(text) for text in row.texts]
        holds = dict(zip(row.texts, executed.score(row.prompt, completions), strict=True))
        ways: dict[str, Selector] = {"majority": Majority(), "executed": Filtered(_Known(holds), Majority())}
        if scores is not None:
            known = _Known(dict(zip(row.texts, scores[index], strict=True)))
            ways |= {"verifier": Best(known), "weighted": Majority(known)}
        judged = {name: way.judge(row.prompt, completions) for name, way in ways.items()}
        for n in numbers:
            chosen = _choices(len(completions), n, index)
            for name, way in ways.items():
                hits = [_hit(way, [judged[name][i] for i in choice], row.gold) for choice in chosen]
                shares.setdefault((name, n), []).append(math.fsum(hits) / len(hits))
        told()
    points = [Point(name, n, *_mean(values)) for (name, n), values in shares.items()]
    counts = [(len(row.right), sum(row.right)) for row in sampled]
    return [*points, *(Point("oracle", n, *mean_pass_at_k(counts, n)) for n in numbers)]


def _choices(samples: int, n: int, problem: int) -> list[list[int]]:
    if n == samples:
        return [list(range(samples))]
    if n == 1:
        return [[index] for index in range(samples)]
    draw = random.Random(problem * 1000 + n)
    return [sorted(draw.sample(range(samples), n)) for _ in range(CHOICES)]


def _hit(way: Selector, candidates: list[Candidate], gold: str) -> bool:
    answer = candidates[way.choose(candidates)].answer
    return answer is not None and Answers().equal(answer, gold)


def _mean(values: Sequence[float]) -> tuple[float, float]:
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))


def shown(points: Sequence[Point]) -> str:
    """One row a way, one column an N."""
    numbers = sorted({point.n for point in points})
    ways = list(dict.fromkeys(point.way for point in points))
    at = {(point.way, point.n): point for point in points}
    rows = [
        [way, *(f"{100 * at[way, n].accuracy:.1f} +- {100 * at[way, n].error:.1f}" for n in numbers)] for way in ways
    ]
    return table(["chosen by, %", *(f"N = {n}" for n in numbers)], rows)


def draw(points: Sequence[Point], path: Path) -> None:
    """The curves as a picture, with a standard error on each side."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    for way in dict.fromkeys(point.way for point in points):
        mine = sorted((point for point in points if point.way == way), key=lambda point: point.n)
        style = "--" if way == "oracle" else "-"
        axes.errorbar(
            [point.n for point in mine],
            [100 * point.accuracy for point in mine],
            [point.error * 100 for point in mine],
            linestyle=style,
            marker="o",
            capsize=2,
            label=way,
        )
    numbers = sorted({point.n for point in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(n) for n in numbers])
    axes.set_xlabel("samples N")
    axes.set_ylabel("problems solved, %")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
