"""What happened, as numbers: signals, measures and snapshots become calls of recorders, one for each way to show them.

Prometheus (`metrics`) and OpenTelemetry (`telemetry`) are recorders. All is told once a second, by the thread of
`reporting`: an event may be that of a garbage collection, which can begin anywhere, also where a library holds its
lock. Nothing here asks the database.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict, deque
from time import time
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from django.dispatch import Signal

from . import instruments as of
from . import measures, reporting, signals
from .errors import AcquireTimeout, TooManyWaiting
from .instruments import INSTRUMENTS, Instrument
from .measures import Drained
from .operation_names import operation_of
from .process import of_process
from .resources import DatabaseResources, all_resources
from .snapshot import PoolSnapshot

Labels = tuple[str, ...]
"""Values of an instrument's labels, in their order."""


class Recorder(Protocol):
    """One way to show numbers; called by one thread at a time."""

    def add(self, instrument: Instrument, labels: Labels, amount: int) -> None:
        """Count."""

    def observe(self, instrument: Instrument, labels: Labels, values: list[float]) -> None:
        """Put durations into a histogram."""

    def set(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Set a gauge."""


class _Process:
    """What outlives a reload of this module."""

    def __init__(self) -> None:
        self.recorders: dict[str, Recorder] = {}
        # Of each pool what was counted already.
        self.counted: WeakKeyDictionary[DatabaseResources, PoolSnapshot] = WeakKeyDictionary()
        # Names of a recorder's methods, and what they will be called with.
        self.waiting: deque[tuple[str, Instrument, Labels, Any]] = deque()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.waiting.clear)  # the parent will tell it


def _process() -> _Process:
    return of_process(__name__, _Process)  # type: ignore[no-any-return]


def record_with(name: str, recorder: Recorder) -> None:
    """Let `recorder` be told from now on; a second one of the same name takes its place."""
    _process().recorders[name] = recorder
    measures.subscribe("recording", take)
    reporting.each_second("recording", tell)
    for signal, receiver in _RECEIVERS.items():
        uid = f"dbresilience.recording.{receiver.__name__}"
        signal.disconnect(dispatch_uid=uid, sender=None)
        signal.connect(receiver, weak=False, dispatch_uid=uid)


def recorder_named(name: str) -> Any:
    """Return the recorder of that name, or None."""
    return _process().recorders.get(name)


def _add(instrument: Instrument, *labels: str, amount: int = 1) -> None:
    _keep("add", instrument, labels, amount)


def _observe(instrument: Instrument, labels: Labels, values: list[float]) -> None:
    if values:
        _keep("observe", instrument, labels, values)


def _set(instrument: Instrument, *labels: str, value: float) -> None:
    _keep("set", instrument, labels, value)


def _keep(method: str, instrument: Instrument, labels: Labels, value: Any) -> None:
    _process().waiting.append((method, instrument, labels, value))
    reporting.begin()  # there may be no pool yet, and none as long as the database is away


def tell() -> None:
    """Tell the recorders what has happened, and what the pools of this process have at this moment."""
    look()
    process = _process()
    while process.waiting:
        method, instrument, labels, value = process.waiting.popleft()
        for recorder in process.recorders.values():
            getattr(recorder, method)(instrument, labels, value)


# Durations


def take(drained: Drained) -> None:
    """Record the leases and statements of one alias."""
    pool = drained.alias
    _observe(of.WAIT_TIME, (pool,), drained.waits)
    _observe(of.USE_TIME, (pool,), drained.holds)
    for reason, leases in drained.ends.items():
        _add(of.LEASES, pool, reason, amount=leases)
    durations: dict[Labels, list[float]] = defaultdict(list)
    for query, seconds, error in drained.statements:
        durations[pool, operation_of(query), error or ""].append(seconds)
    for labels, values in durations.items():
        _observe(of.DURATION, labels, values)
    if any(not error for _, _, error in durations):
        _set(of.LAST_SUCCESS, pool, value=time())


# Gauges, and what pools count by themselves


def look() -> None:
    """Record what the pools of this process have at this moment."""
    of_alias: dict[str, list[PoolSnapshot]] = defaultdict(list)
    counted = _process().counted
    for resources in all_resources():
        if resources.pool is None:
            continue
        snapshot = resources.snapshot()
        of_alias[snapshot.alias].append(snapshot)
        _count_failures(counted.get(resources) or PoolSnapshot(snapshot.alias), snapshot)
        counted[resources] = snapshot
    for alias, snapshots in of_alias.items():
        newest = snapshots[-1]
        _set(of.COUNT, alias, "used", value=sum(each.in_use for each in snapshots))
        _set(of.COUNT, alias, "idle", value=sum(each.idle for each in snapshots))
        _set(of.PENDING_REQUESTS, alias, value=sum(each.waiting for each in snapshots))
        _set(of.MAX, alias, value=newest.max_size)
        _set(of.IDLE_MAX, alias, value=newest.max_size)
        _set(of.IDLE_MIN, alias, value=newest.min_size)
        for state in of.BREAKER.labels["breaker"]:
            _set(of.BREAKER, alias, state, value=int(newest.breaker == state))


def _count_failures(before: PoolSnapshot, now: PoolSnapshot) -> None:
    failures = now.connect_failures_total - before.connect_failures_total
    if failures > 0:
        _add(of.CONNECT_FAILURES, now.alias, amount=failures)
        _set(of.LAST_FAILURE, now.alias, value=time())
    full = now.server_full_total - before.server_full_total
    if full > 0:
        _add(of.EXHAUSTIONS, now.alias, "server_full", amount=full)


# Events


def _begin_at_zero(alias: str, **details: Any) -> None:
    """Let counters be there before anything is counted: a rate cannot see the step from nothing to 1."""
    for instrument in INSTRUMENTS:
        others = [values for label, values in instrument.labels.items() if label != "pool"]
        if instrument.kind == of.COUNTER and "pool" in instrument.labels and all(others):
            for labels in itertools.product(*others):
                _add(instrument, alias, *labels, amount=0)


def _connection_opened(alias: str, connect_seconds: float, **details: Any) -> None:
    _observe(of.CREATE_TIME, (alias,), [connect_seconds])


def _connection_closed(alias: str, reason: str, **details: Any) -> None:
    _add(of.CLOSED, alias, reason)


def _pool_condemned(alias: str, reason: str, **details: Any) -> None:
    _add(of.CONDEMNED, alias, reason)


def _acquire_timed_out(alias: str, **details: Any) -> None:
    _add(of.TIMEOUTS, alias)


def _acquire_refused(alias: str, classification: Any, exception: Exception, **details: Any) -> None:
    _add(of.REFUSALS, alias, classification.name)
    _set(of.LAST_FAILURE, alias, value=time())
    if isinstance(exception, TooManyWaiting):
        _add(of.EXHAUSTIONS, alias, "too_many_waiting")
    elif isinstance(exception, AcquireTimeout) and not exception.could_not_connect:
        _add(of.EXHAUSTIONS, alias, "timed_out")


def _breaker_opened(alias: str, **details: Any) -> None:
    _add(of.BREAKER_CHANGES, alias, "open")


def _breaker_closed(alias: str, **details: Any) -> None:
    _add(of.BREAKER_CHANGES, alias, "closed")


def _pool_paused(alias: str, **details: Any) -> None:
    _add(of.BREAKER_CHANGES, alias, "paused")


def _pool_resumed(alias: str, **details: Any) -> None:
    _add(of.BREAKER_CHANGES, alias, "closed")


def _unit_repeated(alias: str, **details: Any) -> None:
    _add(of.RETRIES, alias, "unit", "again")


def _unit_recovered(alias: str, **details: Any) -> None:
    _add(of.RETRIES, alias, "unit", "succeeded")


def _unit_given_up(alias: str, **details: Any) -> None:
    _add(of.RETRIES, alias, "unit", "given_up")


def _read_repeated(alias: str, **details: Any) -> None:
    _add(of.RETRIES, alias, "read", "again")


def _commit_looked_up(alias: str, outcome: str, **details: Any) -> None:
    _add(of.COMMITS_LOOKED_UP, alias, outcome)


def _statement_overdue(alias: str, **details: Any) -> None:
    _add(of.OVERDUE, alias)


def _slow_query(alias: str, **details: Any) -> None:
    _add(of.SLOW_QUERIES, alias)


def _pool_warmed(alias: str, seconds: float, outcome: str, **details: Any) -> None:
    _observe(of.WARM_UP, (alias, str(outcome)), [seconds])


def _request_refused(request: Any, status: int, classification: Any, **details: Any) -> None:
    match = getattr(request, "resolver_match", None)
    # A path would be a label for each number in it, and belongs to somebody.
    _add(of.REQUESTS_REFUSED, match.route if match is not None else "unresolved", str(status), classification.name)


_RECEIVERS: dict[Signal, Any] = {
    signals.pool_opened: _begin_at_zero,
    **{
        getattr(signals, receiver.__name__.removeprefix("_")): receiver
        for receiver in (
            _connection_opened, _connection_closed, _pool_condemned, _acquire_timed_out, _acquire_refused,
            _breaker_opened, _breaker_closed, _pool_paused, _pool_resumed, _unit_repeated, _unit_recovered,
            _unit_given_up, _read_repeated, _commit_looked_up, _statement_overdue, _slow_query, _pool_warmed,
            _request_refused,
        )
    },
}  # fmt: skip
