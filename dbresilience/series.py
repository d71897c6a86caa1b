"""The last minutes or the last hour as columns of numbers, one for each line of a chart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .history_file import GAUGES, Sample
from .intervals import Interval, between, together
from .processes import Process

GAUGES_SHOWN = ("max_size", "in_use", "idle", "waiting", "breaker")
COUNTERS_SHOWN = ("failed_total", "refused_total", "too_slow_total", "timed_out_total", "repeated_total")
DURATIONS_SHOWN = ("wait", "hold", "query")
WINDOWS = {300: 1, 3600: 10}
"""Seconds that can be shown, and the seconds between two points of each."""
STALE_STEPS = 3

Columns = dict[str, list[float | None]]


@dataclass(frozen=True, slots=True)
class _Point:
    """One process around one moment."""

    sample: Sample
    interval: Interval


def series(processes: Sequence[Process], *, window_seconds: int, now: float, after: float = 0.0) -> Columns:
    """Return the columns: ``t``, gauges, counters per second, and percentiles as ``wait_p95``; None where nobody was.

    Args:
        processes: whose numbers are put together.
        window_seconds: one of `WINDOWS`.
        now: the moment; the newest point is the last second, or ten, that is complete.
        after: leave out the points up to this moment.
    """
    step = WINDOWS[window_seconds]
    last = int(now // step) - 1
    first = max(last - window_seconds // step + 1, int(after // step) + 1)
    names = [f"{duration}_{share}" for duration in DURATIONS_SHOWN for share in ("p50", "p95", "p99")]
    columns: Columns = {name: [] for name in ("t", *GAUGES_SHOWN, "statements", *COUNTERS_SHOWN, *names)}
    points = [dict(_points(process, step, first, last)) for process in processes]
    for number in range(first, last + 1):
        columns["t"].append(number * step)
        _add(columns, [each[number] for each in points if number in each])
    return columns


def _points(process: Process, step: int, first: int, last: int) -> Iterator[tuple[int, _Point]]:
    """One point for each step; the one before is shown again where a process came a little late."""
    if process.ended_at is not None and process.ended_at < first * step:
        return
    samples = list(process.file.samples(step, (first - STALE_STEPS - 1) * step, (last + 1) * step))
    begins_here = process.about.from_zero and (not samples or process.file.newest(samples[0].at - 0.001) is None)
    newest: dict[int, _Point] = {}
    before: Sample | None = None
    for sample in samples:
        if before is not None or begins_here:
            newest[int(sample.at // step)] = _Point(sample, between(before, sample, process.about.started_at))
        before = sample
    shown: tuple[int, _Point] | None = None
    for number in range(first - STALE_STEPS, last + 1):
        if number in newest:
            shown = number, newest[number]
        if number < first or shown is None or number - shown[0] > STALE_STEPS:
            continue
        if process.ended_at is not None and number * step > process.ended_at:
            return
        yield number, shown[1]


def _add(columns: Columns, points: Sequence[_Point]) -> None:
    if not points:
        for name, column in columns.items():
            if name != "t":
                column.append(None)
        return
    for name in GAUGES_SHOWN:
        values = [point.sample.gauges[GAUGES.index(name)] for point in points]
        columns[name].append(max(values) if name == "breaker" else sum(values))
    rates = dict.fromkeys(("statements", *COUNTERS_SHOWN), 0.0)
    for point in points:
        rates["statements"] += point.interval.count_of("query") / point.interval.seconds
        for name in COUNTERS_SHOWN:
            rates[name] += point.interval.count(name) / point.interval.seconds
    for name, rate in rates.items():
        columns[name].append(round(rate, 2))
    whole = together(point.interval for point in points)
    for duration in DURATIONS_SHOWN:
        percentiles = whole.percentiles(duration)
        for share in ("p50", "p95", "p99"):
            seconds: float | None = getattr(percentiles, share)
            columns[f"{duration}_{share}"].append(None if seconds is None else float(f"{seconds:.3g}"))
