"""Histories of processes that never were, to be looked at."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dbresilience.history_file import BREAKER, COUNTERS, DURATIONS, GAUGES, About, HistoryWriter, Sample
from dbresilience.history_reading import HistoryFile
from dbresilience.percentiles import BUCKETS, bucket_of
from dbresilience.processes import Machine, processes_of

NOW = 1_800_000_000.0


def sample(
    at: float, *, breaker: str = "closed", trouble_since: float = 0.0, waits: list[float] | None = None, **numbers: int
) -> Sample:
    """One with `max_size=5` and these numbers; `waits` are all since the beginning, in seconds."""
    numbers = {"max_size": 5, **numbers, "breaker": BREAKER.index(breaker)}
    buckets = [0] * (BUCKETS * len(DURATIONS))
    for seconds in waits or ():
        buckets[bucket_of(seconds)] += 1
    return Sample(
        at,
        trouble_since,
        tuple(numbers.get(name, 0) for name in GAUGES),
        tuple(numbers.get(name, 0) for name in COUNTERS),
        tuple(buckets),
    )


class Histories:
    """`make(sample, sample, …)` writes the history of one more process that is alive."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: list[HistoryWriter] = []

    def make(self, *samples: Sample, pid: int | None = None, **about: Any) -> HistoryWriter:
        process = About("default", pid or os.getpid(), "gunicorn", NOW - 100, **about)
        writer = HistoryWriter(self._folder, "digest", process)
        self._writers.append(writer)
        for each in samples:
            writer.add_sample(each)
        return writer

    def machine(self, now: float = NOW) -> Machine:
        """All of them at that moment."""
        return Machine(now, processes_of([HistoryFile(writer.path) for writer in self._writers], now))

    def close(self) -> None:
        """Let go of the files."""
        for writer in self._writers:
            writer.close()


@pytest.fixture
def histories(tmp_path: Path) -> Iterator[Histories]:
    made = Histories(tmp_path)
    yield made
    made.close()
