"""Percentiles of durations that were counted in buckets, so that any processes and any interval can be put together.

Each bucket is a quarter wider than the one before, so a percentile is at most a quarter off. Counts of buckets
can be added (several processes) and subtracted (what came in between), which percentiles cannot.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

LEAST_SECONDS = 1e-5
GROWTH = 2 ** (1 / 3)
BOUNDS = tuple(LEAST_SECONDS * GROWTH**power for power in range(75))
"""Upper bounds in seconds, 10 µs to about four minutes; what took longer is in one more bucket."""
BUCKETS = len(BOUNDS) + 1


@dataclass(frozen=True, slots=True)
class Percentiles:
    """How long something took; None without any.

    Attributes:
        count: how many there were.
        p50, p95, p99: seconds within which that many of a hundred were done.
    """

    count: int
    p50: float | None
    p95: float | None
    p99: float | None

    @classmethod
    def of(cls, counts: Sequence[int]) -> Percentiles:
        """Work them out from the count of each bucket."""
        return cls(sum(counts), quantile(counts, 0.50), quantile(counts, 0.95), quantile(counts, 0.99))


def bucket_of(seconds: float) -> int:
    """Return the number of the bucket that a duration belongs to."""
    return bisect_left(BOUNDS, seconds)


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the seconds within which `share` of what was counted was done; None if nothing was.

    The lowest bucket begins at 0; the highest has no end, and stands for its beginning.
    """
    total = sum(counts)
    if not total:
        return None
    rank = max(1, ceil(share * total - 1e-9))
    below = 0
    for bucket, count in enumerate(counts):
        if below + count >= rank:
            return _within(bucket, (rank - below) / count)
        below += count
    raise AssertionError("the rank is at most the total")


def _within(bucket: int, share: float) -> float:
    if bucket >= len(BOUNDS):
        return BOUNDS[-1]
    start = BOUNDS[bucket - 1] if bucket else 0.0
    return start + (BOUNDS[bucket] - start) * share
