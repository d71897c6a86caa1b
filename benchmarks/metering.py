"""What metrics cost: the same requests with and without, in turn, each block with the report of what it has measured.

The report is made by a thread once a second. Here it belongs to the block that caused it, so that nothing of its cost
falls on requests which are not measured. Compared is the CPU time of this process, in all its threads:
the server's does not change, and would hide a difference of one per cent.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from . import queries

BLOCK = 250
"""Requests from one report to the next."""


def measure(alias: str, rounds: int) -> str:
    """Return a table of each kind of request: microseconds of CPU without metrics and with them, and their ratio.

    Args:
        alias: of a dbresilience database in this process.
        rounds: requests of each kind, with and without.
    """
    lines = [
        "| dbresilience, CPU of the client | without metrics µs | with µs | ratio | middle half |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, work in queries.KINDS.items():
        one = queries.bound(alias, work)
        with_metrics, without = _in_turn(alias, one, max(8, rounds // BLOCK))
        ratios = [mine / base for mine, base in zip(with_metrics, without, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        off, on = (statistics.median(taken) / BLOCK * 1e6 for taken in (without, with_metrics))
        lines.append(f"| {title} | {off:.0f} | {on:.0f} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join([*lines, ""])


def _in_turn(alias: str, one: Callable[[int], None], pairs: int) -> tuple[list[float], list[float]]:
    from django.db import connections

    from dbresilience import measures

    one(1)
    pool = connections[alias].resources.pool  # type: ignore[attr-defined]
    queues = measures.measures_of(alias)
    if queues is None:
        raise SystemExit("Nothing is measured: pip install prometheus-client.")
    times: dict[Any, list[float]] = {queues: [], None: []}
    for number in range(-1, pairs):
        # Whoever comes second finds warmer caches.
        for wanted in (queues, None) if number % 2 else (None, queues):
            pool.measures = wanted
            taken = _block(one)
            if number >= 0:
                times[wanted].append(taken)
    pool.measures = queues
    return times[queues], times[None]


def _block(one: Callable[[int], None]) -> float:
    from dbresilience import reporting

    began = time.process_time()
    for number in range(BLOCK):
        one(number % queries.USERS + 1)
    reporting.report()
    return time.process_time() - began
