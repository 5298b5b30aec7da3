"""Student's t distribution: what the mean of a few normal differences may do by chance; and Fisher's F, for their spread.

With I the regularised incomplete beta function (Abramowitz and Stegun 1964, 26.5 to 26.7) and v degrees of freedom

    P(|T| > t) = I_x(v / 2, 1 / 2),   x = v / (v + t^2)
    P(F > f)   = I_x(v / 2, u / 2),   x = v / (v + u f),   of u and v degrees

I is its continued fraction (26.5.8), evaluated by Lentz's method where it converges fast and by the symmetry
I_x(a, b) = 1 - I_{1-x}(b, a) elsewhere. The quantile is found by bisection: the tail falls strictly with t.
"""

from __future__ import annotations

import math
from functools import lru_cache

MAX_TERMS = 10_000  # the fraction needs some sqrt(max(a, b)) of them
TINY = 1e-300  # stands for a zero denominator in Lentz's method


def tail(t: float, degrees: float) -> float:
    """P(T > t) for ``degrees`` degrees of freedom. Raises ValueError unless they are positive and finite."""
    if not 0 < degrees < math.inf:
        raise ValueError(f"degrees of freedom must be positive and finite, not {degrees}")
    if t < 0:
        return 1.0 - tail(-t, degrees)
    if math.isinf(t):
        return 0.0
    # both parts of 1 are computed from t: neither is a difference of nearly equal numbers
    outer, inner = degrees / (degrees + t * t), t * t / (degrees + t * t)
    return 0.5 * _incomplete_beta(outer, inner, degrees / 2, 0.5)


def fisher_tail(ratio: float, above: float, below: float) -> float:
    """P(F > ``ratio``) for a ratio of variances of ``above`` and ``below`` degrees of freedom.

    Raises ValueError unless they are positive and finite.
    """
    if not (0 < above < math.inf and 0 < below < math.inf):
        raise ValueError(f"degrees of freedom must be positive and finite, not {above} and {below}")
    if ratio <= 0:
        return 1.0
    scale = below + above * ratio
    return _incomplete_beta(below / scale, above * ratio / scale, below / 2, above / 2)


@lru_cache(maxsize=256)  # many comparisons of equally many items ask for the same one
def quantile(probability: float, degrees: float) -> float:
    """The t with P(T <= t) = ``probability``.

    Raises ValueError for a probability that is not between 0 and 1, or degrees as in :func:`tail`.
    """
    if not 0 < probability < 1:
        raise ValueError(f"a quantile's probability lies between 0 and 1, not {probability}")
    if probability < 0.5:
        return -quantile(1 - probability, degrees)
    above = 1 - probability
    low, high = 0.0, 1.0
    while tail(high, degrees) > above:
        low, high = high, 2 * high
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        low, high = (middle, high) if tail(middle, degrees) > above else (low, middle)


def _incomplete_beta(x: float, rest: float, a: float, b: float) -> float:
    """I_x(a, b), with ``rest`` = 1 - x."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(rest, x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    return front / a / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)), with the d of 26.5.8."""
    value, above, below = 1.0, 1.0, 0.0
    for term in range(1, MAX_TERMS):
        half = term // 2
        if term % 2:
            numerator = -(a + half) * (a + b + half) * x / ((a + 2 * half) * (a + 2 * half + 1))
        else:
            numerator = half * (b - half) * x / ((a + 2 * half - 1) * (a + 2 * half))
        below = 1 / ((1 + numerator * below) or TINY)
        above = (1 + numerator / above) or TINY
        value *= above * below
        if abs(above * below - 1) < 1e-16:
            break
    return value
