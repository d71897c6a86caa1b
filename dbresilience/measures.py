"""What is measured of each lease and statement: put down as it is while somebody waits, and worked out later.

To put a number into a queue costs a tenth of what it costs to count it in a histogram. Whoever shows numbers drains
the queues once a second, in a thread of its own (`drain`), and tells all who have subscribed.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .process import of_process

MOST_WAITING = 100_000
"""Entries of each queue. Who measures that much in a second loses the oldest, and it is counted."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What was measured for one alias since the last time.

    Attributes:
        alias: whose leases and statements they were.
        waits: seconds from asking for a connection to having it, for each lease.
        holds: seconds from having a connection to giving it back, for each lease.
        statements: query, seconds, and the error's SQLSTATE or class if it failed, for each statement.
    """

    alias: str
    waits: list[float]
    holds: list[float]
    statements: list[tuple[Any, float, str | None]]


class Measures:
    """The queues of one alias in this process."""

    __slots__ = ("alias", "holds", "statements", "waits")

    def __init__(self, alias: str) -> None:
        self.alias = alias
        # A deque's append is atomic, where += of a number is not.
        self.waits: deque[float] = deque(maxlen=MOST_WAITING)
        self.holds: deque[float] = deque(maxlen=MOST_WAITING)
        self.statements: deque[tuple[Any, float, str | None]] = deque(maxlen=MOST_WAITING)

    def add_statement(self, query: Any, seconds: float, error: BaseException | None) -> None:
        """Put down one statement; its error without the frames that it holds."""
        name = None if error is None else getattr(error, "sqlstate", None) or type(error).__name__
        self.statements.append((query, seconds, name))

    def take(self) -> Drained:
        """Return what has come since the last time."""
        return Drained(self.alias, _taken(self.waits), _taken(self.holds), _taken(self.statements))


def _taken(queue: deque[Any]) -> list[Any]:
    taken = []
    for _ in range(len(queue)):
        try:
            taken.append(queue.popleft())
        except IndexError:  # somebody else drains, too
            break
    return taken


Subscriber = Callable[[Drained], None]


class _Process:
    def __init__(self) -> None:
        self.by_alias: dict[str, Measures] = {}
        self.subscribers: dict[str, Subscriber] = {}
        self.lock = threading.Lock()


def _process() -> _Process:
    return of_process("measures", _Process)  # type: ignore[no-any-return]


def subscribe(name: str, subscriber: Subscriber) -> None:
    """Let `subscriber` be told of what is drained; a second one of the same name takes its place.

    Pools that are made from now on are measured. Without subscribers nothing is.
    """
    _process().subscribers[name] = subscriber


def unsubscribe(name: str) -> None:
    """Forget a subscriber; harmless if there is none of that name."""
    _process().subscribers.pop(name, None)


def measures_of(alias: str) -> Measures | None:
    """Return the queues of `alias`; None while nobody wants to know."""
    process = _process()
    if not process.subscribers:
        return None
    return process.by_alias.setdefault(alias, Measures(alias))


def drain() -> None:
    """Tell every subscriber what was measured since the last time.

    Raises:
        ExceptionGroup: of those subscribers that raised; the others have been told all the same.
    """
    process = _process()
    failures: list[Exception] = []
    with process.lock:  # so that each hears of things in their order
        for measures in list(process.by_alias.values()):
            drained = measures.take()
            for subscriber in list(process.subscribers.values()):
                try:
                    subscriber(drained)
                except Exception as failure:
                    failures.append(failure)
    if failures:
        raise ExceptionGroup("Not everybody could take what was measured.", failures)


def forget_in_child() -> None:
    """In a forked child: what the parent measured is the parent's."""
    process = _process()
    process.lock = threading.Lock()
    for measures in process.by_alias.values():
        for queue in (measures.waits, measures.holds, measures.statements):
            queue.clear()
