"""What this process writes down about its pools once a second, for the dashboard and `manage.py dbresilience status`.

Counts what the signals say, sorts measured durations into buckets, and asks each pool for its numbers. A pool has a
file from its first use on, in the folder that operators' orders use; see `history_file`.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

from . import happenings, measures, reporting, signals
from .history_file import BREAKER, COUNTERS, DURATIONS, GAUGES, About, HistoryWriter, Sample
from .history_reading import history_files
from .incarnations import incarnation_of
from .masking import without_values
from .measures import Drained
from .percentiles import BUCKETS, bucket_of
from .process import of_process
from .resources import DatabaseResources, all_resources
from .slow_queries import SlowQuery
from .snapshot import PoolSnapshot

AGAIN_SECONDS = 5.0
"""Of events that are the same in everything but their numbers and follow each other faster, the first is written."""
_ALWAYS_TOLD = {"breaker_opened", "breaker_closed", "pool_paused", "pool_resumed"}
_MOST_WAITING = 200
_NUMBER = re.compile(r"[\d.]+")


class PoolHistory:
    """What is known of the pool of one alias, and the file that it goes to."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.counts: Counter[str] = Counter()
        self.buckets = {name: [0] * BUCKETS for name in DURATIONS}
        self.trouble_since = 0.0
        # A garbage collection may close a cursor anywhere, and what that sends is counted here, too.
        self._lock = threading.RLock()
        self._writer: HistoryWriter | None = None
        self._had_file = False
        self._digest = ""
        # A signal is sent while somebody waits; the file is written a second later at most.
        self._events: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._slow_queries: deque[dict[str, Any]] = deque(maxlen=_MOST_WAITING)
        self._told_at: dict[str, float] = {}

    def add_durations(self, drained: Drained) -> None:
        """Sort what was measured into buckets."""
        for name, durations in (("wait", drained.waits), ("hold", drained.holds)):
            counts = self.buckets[name]
            for seconds in durations:
                counts[bucket_of(seconds)] += 1
        counts = self.buckets["query"]
        for _, seconds, error in drained.statements:
            counts[bucket_of(seconds)] += 1
            if error is not None:
                self.counts["failed_total"] += 1

    def count(self, name: str) -> None:
        """Add one to a counter."""
        with self._lock:
            self.counts[name] += 1

    def add_event(self, name: str, text: str) -> None:
        """Keep what happened for the time line."""
        now = time()
        kind = name + _NUMBER.sub("", text)
        if name not in _ALWAYS_TOLD and now - self._told_at.get(kind, 0.0) < AGAIN_SECONDS:
            return
        self._told_at[kind] = now
        self._events.append({"at": now, "event": name, "text": text[:100]})

    def add_slow_query(self, query: SlowQuery) -> None:
        """Keep a slow query: no values, whatever the log of slow queries shows, and no path, only its route."""
        self._slow_queries.append(
            {
                "at": time(),
                "seconds": query.duration_seconds,
                "sql": without_values(query.sql)[:330],
                "call_site": query.call_site[-90:],
                "path": (query.route or "")[:50],
            }
        )

    def write(self, resources: DatabaseResources, snapshot: PoolSnapshot) -> None:
        """Write a sample and what has happened since the last one.

        Raises:
            OSError: the file cannot be written.
            OrdersUnusable: its folder cannot be trusted or made.
        """
        path = Path(resources.orders.path)
        writer = self._writer
        if writer is None or self._digest != path.stem or not writer.is_there:
            self.end()
            self.close()
            resources.orders.prepare_folder()
            history_files(path.parent)
            about = _about(self.alias, from_zero=not self._had_file)
            self._had_file = True
            writer = self._writer = HistoryWriter(path.parent, path.stem, about)
            self._digest = path.stem
        writer.add_sample(self._sample(snapshot))
        while self._events:
            writer.add_event(self._events.popleft())
        while self._slow_queries:
            writer.add_slow_query(self._slow_queries.popleft())

    def end(self) -> None:
        """Write that the process ends."""
        if self._writer is not None:
            with suppress(OSError):
                self._writer.end()

    def close(self) -> None:
        """Let go of the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _sample(self, snapshot: PoolSnapshot) -> Sample:
        now = time()
        if snapshot.breaker == "closed":
            self.trouble_since = 0.0
        elif not self.trouble_since:
            self.trouble_since = now
        numbers = {name: getattr(snapshot, name, 0) for name in (*GAUGES, *COUNTERS)}
        numbers["breaker"] = BREAKER.index(snapshot.breaker)
        return Sample(
            now,
            self.trouble_since,
            tuple(numbers[name] for name in GAUGES),
            tuple(numbers[name] or self.counts[name] for name in COUNTERS),
            tuple(count for name in DURATIONS for count in self.buckets[name]),
        )


class _Process:
    """What outlives a reload of this module."""

    def __init__(self) -> None:
        self.started_at = time()
        self.histories: dict[str, PoolHistory] = {}
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.forget_in_child)

    def forget_in_child(self) -> None:
        inherited, self.histories = list(self.histories.values()), {}
        self.started_at = time()
        for history in inherited:
            history.close()


def _process() -> _Process:
    return of_process(__name__, _Process)  # type: ignore[no-any-return]


def install() -> None:
    """Write down what happens in this process from now on. Repeating it is harmless."""
    _process()
    for name in happenings.HEARD:
        signal, uid = getattr(signals, name), f"dbresilience.history.{name}"
        signal.disconnect(dispatch_uid=uid)
        signal.connect(_receiver(name), weak=False, dispatch_uid=uid)
    measures.subscribe("history", lambda drained: _history_of(drained.alias).add_durations(drained))
    reporting.each_second("history", write)
    reporting.after_last_turn("history", _end)


def _receiver(name: str) -> Any:
    def receive(sender: str | None, alias: str | None = None, **details: Any) -> None:
        # A refused request whose error does not say which database it was belongs to all pools of the process.
        told = [_history_of(alias)] if alias is not None else list(_process().histories.values())
        happening = happenings.understand(name, details)
        for history in told:
            if happening.counter:
                history.count(happening.counter)
            if happening.text:
                history.add_event(name, happening.text)
            if name == "slow_query":
                history.add_slow_query(details["query"])
            elif name == "breaker_opened":
                history.trouble_since = time()

    return receive


def write() -> None:
    """Write a sample of each pool of this process that has been used.

    Raises:
        Exception: that of the last pool that could not be written, such as OSError; the others were.
    """
    failure: Exception | None = None
    for resources, snapshot in _pools_in_use():
        try:
            _history_of(resources.alias).write(resources, snapshot)
        except Exception as error:  # whatever one pool has, the others are written
            failure = error
    if failure is not None:
        raise failure


def _pools_in_use() -> list[tuple[DatabaseResources, PoolSnapshot]]:
    """The pools that have been asked for a connection, one for each alias: the newest that is open."""
    found: dict[str, tuple[DatabaseResources, PoolSnapshot]] = {}
    for resources in all_resources():
        snapshot = resources.snapshot()
        if resources.pool is None or not (snapshot.generation or snapshot.breaker != "closed"):
            continue
        before = found.get(resources.alias)
        if before is None or snapshot.size or not before[1].size:
            found[resources.alias] = resources, snapshot
    return list(found.values())


def _history_of(alias: str) -> PoolHistory:
    histories = _process().histories
    # Without a lock: a signal may be sent by a garbage collection within this very function.
    return histories.get(alias) or histories.setdefault(alias, PoolHistory(alias))


def _end() -> None:
    for history in list(_process().histories.values()):
        history.end()


def _about(alias: str, *, from_zero: bool) -> About:
    pid, what = os.getpid(), what_this_process_is(sys.argv)
    incarnation = incarnation_of(pid)
    return About(alias, pid, what, _process().started_at, incarnation=incarnation, began_at=time(), from_zero=from_zero)


def what_this_process_is(argv: list[str]) -> str:
    """Name this process for people: ``gunicorn``, ``manage.py migrate``; never an argument that may be a secret."""
    program = Path(argv[0] if argv else "")
    name = program.parent.name if program.name == "__main__.py" else program.name
    if name in ("manage.py", "django-admin", "django") and len(argv) > 1 and argv[1].replace("_", "").isalnum():
        return f"{name} {argv[1]}"
    return name or "python"
