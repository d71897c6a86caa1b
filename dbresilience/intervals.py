"""What came in between two samples of a history, for one process or for several together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .history_file import COUNTERS, DURATIONS, WRAP, Sample
from .percentiles import BUCKETS, Percentiles


@dataclass(frozen=True, slots=True)
class Interval:
    """What happened in some seconds.

    Attributes:
        seconds: how long that was.
        counters: what each counter of `history_file.COUNTERS` went up by.
        buckets: how many waits, holds and queries of each length there were, one list after the other.
    """

    seconds: float
    counters: tuple[int, ...]
    buckets: tuple[int, ...]

    def count(self, name: str) -> int:
        """Return what one counter went up by."""
        return self.counters[COUNTERS.index(name)]

    def percentiles(self, duration: str) -> Percentiles:
        """Return those of ``wait``, ``hold`` or ``query``."""
        start = DURATIONS.index(duration) * BUCKETS
        return Percentiles.of(self.buckets[start : start + BUCKETS])

    def count_of(self, duration: str) -> int:
        """Return how many waits, holds or queries there were."""
        start = DURATIONS.index(duration) * BUCKETS
        return sum(self.buckets[start : start + BUCKETS])


NOTHING = Interval(0.0, (0,) * len(COUNTERS), (0,) * (len(DURATIONS) * BUCKETS))


def between(before: Sample | None, after: Sample, began_at: float) -> Interval:
    """Return what came in between.

    Args:
        before: the earlier sample; None if there is none, since the process has only begun.
        after: the later one.
        began_at: when that was, by `time.time`.
    """
    if before is None:
        return Interval(max(after.at - began_at, 0.001), after.counters, after.buckets)
    return Interval(
        max(after.at - before.at, 0.001),
        _risen(before.counters, after.counters),
        tuple([(now - then) % WRAP for then, now in zip(before.buckets, after.buckets, strict=True)]),
    )


def _risen(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    # A counter that fell began anew: its pool was exchanged for another.
    return tuple([now - then if now >= then else now for then, now in zip(before, after, strict=True)])


def together(intervals: Iterable[Interval]) -> Interval:
    """Return the same seconds of several processes as one."""
    each = list(intervals)
    if len(each) == 1:
        return each[0]
    if not each:
        return NOTHING
    return Interval(
        max(interval.seconds for interval in each),
        tuple(map(sum, zip(*(interval.counters for interval in each), strict=True))),
        tuple(map(sum, zip(*(interval.buckets for interval in each), strict=True))),
    )
