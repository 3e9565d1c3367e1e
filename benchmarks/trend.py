"""Whether a series grows: a robust slope, how sure it is, and a verdict. Pure.

The slope is Theil's and Sen's: the median of the slopes between all pairs of points, which a few wild points do not
move. Its confidence interval is Sen's, by Kendall's statistic. That interval takes the points to be independent, which
samples of a process a few seconds apart are not, so they are first gathered into a few blocks, each told by its median.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

BLOCKS = 24
SHORTEST = 600.0
"""Seconds that a trend must have been watched for to be judged: what starts up looks like growth for a while."""

_CONFIDENCE = 1.96  # 95 %


class Slope(NamedTuple):
    """Units of y for one of x, and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Verdict(StrEnum):
    """What a trend says."""

    STEADY = "no growth"
    GROWS = "GROWS"
    UNSURE = "cannot tell"
    SHORT = "too short to judge"


@dataclass(frozen=True)
class Trend:
    """How a series moves: its level, its change an hour through that level, and the interval of that change."""

    level: float
    hourly: float
    low: float
    high: float
    seconds: float
    """How long it was watched."""

    def judge(self, tolerance: float, least: float) -> Verdict:
        """Growth is what is surely more than ``tolerance`` an hour, and made up at least ``least`` meanwhile.

        None is what surely is not; what may be the one or the other is told as that.
        """
        if self.seconds < SHORTEST:
            return Verdict.SHORT
        meanwhile = self.level * self.seconds / 3600
        if self.low > tolerance and self.hourly * meanwhile >= least:
            return Verdict.GROWS
        if self.high <= tolerance or self.high * meanwhile < least:
            return Verdict.STEADY
        return Verdict.UNSURE


def theil_sen(xs: Sequence[float], ys: Sequence[float]) -> Slope:
    """The median of all pairs' slopes. ``xs`` rise; at least two points.

    Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63 (1968).
    """
    count = len(xs)
    slopes = sorted((ys[j] - ys[i]) / (xs[j] - xs[i]) for i in range(count) for j in range(i + 1, count))
    reach = _CONFIDENCE * math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    low = math.floor((len(slopes) - reach) / 2)
    high = math.ceil((len(slopes) + reach) / 2)
    return Slope(statistics.median(slopes), slopes[max(0, low)], slopes[min(len(slopes) - 1, high)])


def trend(times: Sequence[float], values: Sequence[float | None], *, skip: float = 1 / 3) -> Trend | None:
    """The trend of ``values`` at ``times`` (seconds), without the first ``skip`` of them, which warm up.

    None where fewer than four points are left, or where the level is 0.
    """
    if not times:
        return None
    since = times[0] + skip * (times[-1] - times[0])
    points = [(at, value) for at, value in zip(times, values, strict=True) if value is not None and at >= since]
    if len(points) < 4:
        return None
    level = statistics.median(value for _, value in points)
    if level <= 0:
        return None
    xs, ys = zip(*_blocks(points), strict=True)
    slope = theil_sen(xs, ys)
    hourly = 3600 / level
    return Trend(
        level=level,
        hourly=slope.value * hourly,
        low=slope.low * hourly,
        high=slope.high * hourly,
        seconds=points[-1][0] - points[0][0],
    )


def _blocks(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    count = min(BLOCKS, len(points))
    blocks = [points[len(points) * n // count : len(points) * (n + 1) // count] for n in range(count)]
    return [(statistics.fmean(at for at, _ in block), statistics.median(y for _, y in block)) for block in blocks]
