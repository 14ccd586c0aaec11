"""Paired differences over seeds and test images: their t intervals, and verdicts on claims.

Both methods of a pair see the same seeds, order of data and test images, so that what these share cancels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmark.results.definitions import MetricDefinition

BETTER, EQUAL = DIRECTIONS = ("better", "equal")
REPRODUCED, CONTRADICTED, ABSENT, INCONCLUSIVE = VERDICTS = ("reproduced", "contradicted", "absent", "inconclusive")
LEVEL = 0.95
"""Quantile of t at either end of a claim's interval: it holds 90 %, and an error is one-sided at 5 %."""
WIDE = 0.975
"""That of a table's interval, which holds 95 %."""
FEWEST = 3
"""Seeds that a verdict needs."""
ROUNDING = 1e-9
"""Part of a margin that floating point may lose: 0.98 - 0.97 is a gain of 0.01."""
Direction = Literal["better", "equal"]


def sign(definition: MetricDefinition) -> int:
    """1 for a metric that is better when larger, else -1."""
    return 1 if definition.higher_is_better else -1


def gains(definition: MetricDefinition, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gain of ``a`` over ``b``, positive where ``a`` is better: a difference, or for ratios the logarithm of one.

    Raises:
        ValueError: If a ratio is asked of values that are not positive.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if definition.target is not None:
        return np.abs(b - definition.target) - np.abs(a - definition.target)
    if not definition.ratio:
        return sign(definition) * (a - b)
    if min(a.min(), b.min()) <= 0:
        raise ValueError("a value is not positive, so that there is no ratio")
    return sign(definition) * (np.log(a) - np.log(b))


def image_gains(definition: MetricDefinition, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Gain at each test image, the mean over seeds; for ratios that of the mean's logarithm to first order.

    Args:
        definition: The metric, whose value is the mean over images.
        a: Scores of one method, ``(seeds, N)``.
        b: Scores of the other.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if definition.ratio:
        a, b = a / a.mean(1, keepdims=True), b / b.mean(1, keepdims=True)
    return sign(definition) * (a - b).mean(0)


def margin(definition: MetricDefinition, b: np.ndarray) -> float:
    """Least gain that counts: the metric's tolerance, in the unit of ``gains``.

    Args:
        definition: The metric.
        b: Values that gains are over; a relative tolerance is of their mean.
    """
    if definition.ratio:
        return float(np.log1p(definition.relative))
    return max(definition.absolute, definition.relative * abs(float(np.mean(b))))


def interval(
    over_seeds: np.ndarray, over_images: np.ndarray | None = None, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the t interval of a mean gain.

    Its squared standard error is ``var(over_seeds) / n + var(over_images) / N``, its degrees of freedom are Welch and
    Satterthwaite's. All seeds share the test images, so that the second part does not shrink with more seeds.

    Args:
        over_seeds: Gains ``(..., n)`` of ``n >= 2`` seeds.
        over_images: Gains ``(..., N)`` of test images, or None if there is no score of an image.
        level: Quantile of t at either end.

    Returns:
        Lower and upper ends, ``(...)``.
    """
    from scipy.special import stdtrit  # not for `--help`

    parts = [over_seeds] if over_images is None else [over_seeds, over_images]
    squares = [part.var(-1, ddof=1) / part.shape[-1] for part in parts]
    square = sum(squares)
    spread = sum(own**2 / (part.shape[-1] - 1) for own, part in zip(squares, parts, strict=True))
    freedom = np.where(spread > 0, square**2 / np.where(spread > 0, spread, 1.0), 1.0)
    half = stdtrit(freedom, level) * np.sqrt(square)
    mean = over_seeds.mean(-1)
    return mean - half, mean + half


@dataclass(frozen=True)
class PairedGain:
    """Mean gain of one side over another, the ends of its interval, and the test images behind these.

    ``images`` is None where the error over images is left out, because one side has no scores of single images.
    """

    mean: float
    low: float
    high: float
    images: int | None


def paired_gain(
    definition: MetricDefinition,
    a: np.ndarray,
    b: np.ndarray,
    of_a: np.ndarray | None,
    of_b: np.ndarray | None,
    level: float = LEVEL,
) -> PairedGain:
    """Gain of ``a`` over ``b``, values of the same seeds.

    Args:
        definition: The metric.
        a: Values ``(n,)`` of ``n >= 2`` seeds.
        b: Those of the other side.
        of_a: Scores ``(n, N)`` of test images whose means are ``a``, if they are kept.
        of_b: Those of the other side.
        level: See ``interval``.

    Raises:
        ValueError: If a ratio is asked of values that are not positive.
    """
    paired = of_a is not None and of_b is not None and of_a.shape == of_b.shape
    with np.errstate(over="ignore", invalid="ignore"):
        over_seeds = gains(definition, a, b)
        over_images = image_gains(definition, of_a, of_b) if paired else None
        low, high = map(float, interval(over_seeds, over_images, level))
    return PairedGain(float(over_seeds.mean()), low, high, None if over_images is None else len(over_images))


def verdict(direction: Direction, mean: float, low: float, high: float, delta: float) -> str:
    """Verdict on "A is better than B" or "A equals B".

    Args:
        direction: The claim.
        mean: Mean gain of A over B.
        low: Lower end of its interval.
        high: Upper end.
        delta: Margin.
    """
    within = -delta < low and high < delta
    if direction == EQUAL:
        if within:
            return REPRODUCED
        return CONTRADICTED if low > delta or high < -delta else INCONCLUSIVE
    least = delta * (1 - ROUNDING)
    if low > 0 and mean >= least:
        return REPRODUCED
    if high < 0 and mean <= -least:
        return CONTRADICTED
    return ABSENT if within else INCONCLUSIVE
