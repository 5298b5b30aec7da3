"""Do ways of training differ from one of them? All tried with the same seeds, each seed a block (Fisher 1935).

    x_vs = way_v + seed_s + e_vs,   e_vs = x_vs - x_v. - x_.s + x_..,   s^2 = sum e_vs^2 / ((V - 1)(S - 1))

    t = (x_v. - x_0.) / (s sqrt(2 / S)),   P(|T| > |t|) with (V - 1)(S - 1) degrees of freedom

What the ways of a seed share cancels. Of two ways this is Student's paired test exactly; of more the noise is measured by all
of them together, and two seeds of forty ways say more of it (39 degrees of freedom) than two differences do (1).

The price is the assumption that the noise of all ways has one size. A way whose own residuals are so large that among V equal
ways even one such would be there once in a hundred tables (F test, Bonferroni) is set aside, the largest first: it stays out
of s and is judged by its own differences alone. If that befalls the baseline, all are. Two seeds show little of a way's own
noise: in 300 made-up tables of 20 ways that do not differ, one of which has k times the others' noise, some way was told apart
in 3, 6 and 19 % for k = 1, 2 and 5 (three seeds: 2, 4 and 11 %), nearly always the noisy one; the others kept their level.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from tinyeval import student_t
from tinyeval.paired import paired_difference
from tinyeval.statistics.paired_items import PairedComparison

NOISY = 0.01  # chance that even one way is set aside although all are equally noisy


def paired_runs(values: Sequence[float], baseline: Sequence[float], confidence: float = 0.95) -> PairedComparison:
    """Compare two ways' scores whose i-th entries belong to the same seed; of one seed nothing can be said, and p is 1.

    Raises ValueError for no seeds, sequences of different lengths and scores that are not finite.
    """
    found = paired_difference(values, baseline, confidence)
    if found.n == 1:
        return PairedComparison(found.mean, found.low, found.high, 1.0, 1, "student")
    spread = statistics.stdev(value - base for value, base in zip(values, baseline, strict=True))
    p = _p(found.mean, spread / math.sqrt(found.n), found.n - 1)
    return PairedComparison(found.mean, found.low, found.high, p, found.n, "student")


def many_runs(
    scores: Mapping[str, Mapping[int, float]], baseline: str, confidence: float = 0.95
) -> dict[str, PairedComparison]:
    """Compare every way's scores, by seed, with those of the way called ``baseline``, over the seeds that both have.

    method "blocks" where the noise is that of all ways that have every seed of the baseline, "student" where it is the
    way's own: with one seed, where it is set aside, and where there is no third way. Ways without a common seed are left out.
    Raises KeyError for a baseline that is not there, ValueError for scores that are not finite or no confidence.
    """
    base = scores[baseline]
    noise, degrees, pool = _noise(scores, baseline)
    found = {}
    for name, own in scores.items():
        seeds = sorted(own.keys() & base.keys())
        if name == baseline or not seeds:
            continue
        alone = paired_runs([own[seed] for seed in seeds], [base[seed] for seed in seeds], confidence)
        complete = len(seeds) == len(base)
        if len(seeds) < 2 or degrees == 0 or (complete and name not in pool):
            found[name] = alone
            continue
        error = noise * math.sqrt(2 / len(seeds))
        reach = student_t.quantile((1 + confidence) / 2, degrees) * error
        p = _p(alone.mean, error, degrees)
        found[name] = PairedComparison(alone.mean, alone.mean - reach, alone.mean + reach, p, len(seeds), "blocks")
    return found


def _noise(scores: Mapping[str, Mapping[int, float]], baseline: str) -> tuple[float, int, list[str]]:
    """s, its degrees of freedom (0: there is nothing to pool), and the ways that it is of."""
    seeds = sorted(scores[baseline])
    pool = [name for name, own in scores.items() if all(seed in own for seed in seeds)]
    level = NOISY / max(1, len(pool))
    while len(pool) > 2 and len(seeds) > 1:
        table = np.array([[scores[name][seed] for seed in seeds] for name in pool], dtype=np.float64)
        degrees = (len(pool) - 1) * (len(seeds) - 1)
        found = _squares(table)
        total = float(found.sum())
        worst = int(found.argmax())
        others = float(_squares(np.delete(table, worst, axis=0)).sum())
        # the part of the sum that the way takes with it has S - 1 degrees of freedom, and is independent of the rest
        ratio = (total - others) / (len(seeds) - 1) / (others / (degrees - len(seeds) + 1)) if others > 0 else 0.0
        if student_t.fisher_tail(ratio, len(seeds) - 1, degrees - len(seeds) + 1) >= level:
            return math.sqrt(total / degrees), degrees, pool
        if pool[worst] == baseline:
            break
        del pool[worst]
    return 0.0, 0, []


def _squares(table: np.ndarray) -> np.ndarray:
    """Of the residuals of (V, S) scores, summed by way: (V,)."""
    residual = table - table.mean(1, keepdims=True) - table.mean(0, keepdims=True) + table.mean()
    return (residual**2).sum(1)


def _p(mean: float, error: float, degrees: int) -> float:
    if error > 0:
        return min(1.0, 2 * student_t.tail(abs(mean) / error, degrees))
    return 1.0 if mean == 0 else 0.0
