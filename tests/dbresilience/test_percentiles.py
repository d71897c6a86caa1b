"""percentiles.py: as right as its buckets are narrow, however many processes they come from."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dbresilience.history_file import COUNTERS, DURATIONS
from dbresilience.intervals import Interval, together
from dbresilience.percentiles import BOUNDS, BUCKETS, GROWTH, LEAST_SECONDS, Percentiles, bucket_of, quantile

durations = st.lists(st.floats(LEAST_SECONDS, BOUNDS[-1], exclude_min=True, allow_nan=False), min_size=1, max_size=300)


def counted(seconds: list[float]) -> list[int]:
    counts = [0] * BUCKETS
    for each in seconds:
        counts[bucket_of(each)] += 1
    return counts


@given(durations, st.sampled_from([0.01, 0.5, 0.9, 0.95, 0.99, 1.0]))
def test_no_further_from_the_exact_value_than_a_bucket_is_wide(seconds: list[float], share: float) -> None:
    """Nearest rank: of ten values the 95th percentile is the tenth."""
    exact = sorted(seconds)[max(ceil(share * len(seconds) - 1e-9), 1) - 1]
    found = quantile(counted(seconds), share)
    assert found is not None
    assert exact / GROWTH * 0.999999 <= found <= exact * GROWTH * 1.000001


@given(st.lists(durations, min_size=1, max_size=4))
def test_processes_together_are_as_one_that_had_all(each: list[list[float]]) -> None:
    all_of_them = [seconds for one in each for seconds in one]
    found = together(Interval(1.0, (0,) * len(COUNTERS), tuple(counted(one) * len(DURATIONS))) for one in each)
    for duration in DURATIONS:
        assert found.percentiles(duration) == Percentiles.of(counted(all_of_them))


def test_the_ends() -> None:
    """Nothing has no percentile; the fastest and the slowest have a bucket, too."""
    assert Percentiles.of([0] * BUCKETS) == Percentiles(0, None, None, None)
    assert quantile(counted([0.0]), 0.5) == pytest.approx(LEAST_SECONDS)
    assert quantile(counted([1e9]), 0.5) == BOUNDS[-1]
