"""What one request does with its connections, put down while somebody watches it (see `contrib.toolbar`).

Until somebody of this process watches for the first time, nothing is put down, and a lease pays for one look at `use`.
Whom a lease belongs to is known from the context in which its connection is taken: threads that a request starts by
`sync_to_async` and tasks that it starts inherit it, a `threading.Thread` does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

from .measures import STATEMENT
from .process import keep, of_process
from .round_trips import RoundTrips, Wait
from .slow_queries import Frame, call_site, frame_awaiting, frame_of_application, is_of_application, text_of

if TYPE_CHECKING:
    from .lease import Lease

SAME_MOMENT_SECONDS = 0.001
"""Waits with less between them are put down as one, or each row of a COPY would be kept."""


class _Use:
    is_on = False


use: _Use = of_process("watching", _Use)
"""Whether somebody of this process has watched yet."""

HELD = "held"
"""In place of why a connection was given back, while it is not."""


@dataclass(frozen=True, slots=True)
class WatchedStatement:
    """One statement.

    Attributes:
        sql: its text with placeholders.
        seconds: how long it took.
        call_site: from where it was executed.
        error: SQLSTATE or class of its error, None if it succeeded.
        is_slow: whether the slow-query log has it.
        round_trip: which of its lease's brought the answer; several may share one.
    """

    sql: str
    seconds: float
    call_site: str
    error: str | None
    is_slow: bool
    round_trip: int


class Moment(NamedTuple):
    """A time, by `time.perf_counter`, in which the server was at work for a lease, and the code that waited."""

    began: float
    ended: float
    call_site: str


@dataclass(frozen=True, slots=True)
class Idle:
    """A time in which a connection was held and nothing asked of it.

    Attributes:
        seconds: how long.
        after: the code that had used the connection before; that which took it, if none had.
        before: the code that used it next; None if it went back without.
    """

    seconds: float
    after: str
    before: str | None


class WatchedLease:
    """One lease of a request that is watched; takes the place of the lease's measures, and serves them.

    Attributes:
        alias: whose pool the connection is of.
        wait_seconds: from asking for the connection to having it.
        call_site: the code that took it, by its first cursor or transaction.
        statements: what was executed, in order; not COPY, nor the fetches of named cursors.
        moments: when the server was at work for it.
        ended: why it was given back (one of `measures.REASONS`), `HELD` while it is not.
    """

    def __init__(self, lease: Lease, watch: Watch) -> None:
        self._watch = watch
        self.alias = lease.pool.alias
        self.wait_seconds = lease.wait_seconds
        self.acquired_at = lease.acquired_at
        self.released_at: float | None = None
        self.call_site = call_site(watch.frame())
        self.statements: list[WatchedStatement] = []
        self.moments: list[Moment] = []
        self.ended = HELD
        self._lease: Lease | None = lease
        self._measures = lease.measures
        self._trips = RoundTrips(self._note_wait)

    # What the lease and its connection tell

    def counting(self, waiting: Wait) -> Wait:
        """Return what waits as `waiting` does, and is put down."""
        return self._trips.counting(waiting)

    def _note_wait(self, began: float, ended: float) -> None:
        lease = self._lease
        if lease is None:  # it is being cleaned for the next borrower
            return
        site, last = call_site(self._watch.frame()), self.moments[-1] if self.moments else None
        if last is not None and last.call_site == site and began - last.ended < SAME_MOMENT_SECONDS:
            began = self.moments.pop().began
        self.moments.append(Moment(began, ended, site))

    def add_statement(self, query: Any, seconds: float, error: BaseException | None, site: Frame | None = None) -> None:
        """Put down one statement."""
        if self._measures is not None:
            self._measures.add_statement(query, seconds, error)
        lease = self._lease
        if lease is None:
            return
        log = lease.connection.slow_query_log
        self.statements.append(
            WatchedStatement(
                text_of(query, lease.connection),
                seconds,
                call_site(site or self._watch.frame()),
                None if error is None else getattr(error, "sqlstate", None) or type(error).__name__,
                log is not None and seconds >= log.threshold_seconds,
                self._trips.total,
            )
        )

    def add_hold(self, seconds: float, why: str | None = None) -> None:
        """Put down that the connection is given back: `why` is one of `measures.REASONS`, None for `STATEMENT`."""
        if self._measures is not None:
            self._measures.add_hold(seconds, why)
        self._lease, self.released_at, self.ended = None, self.acquired_at + seconds, why or STATEMENT

    # What it comes to

    @property
    def round_trips(self) -> int:
        """How often the server was asked and answered, also to clean the session afterwards."""
        return self._trips.total

    @property
    def held_seconds(self) -> float:
        """From having the connection to giving it back, or to now."""
        return (self.released_at or perf_counter()) - self.acquired_at

    @property
    def busy_seconds(self) -> float:
        """How much of that the server was at work for it."""
        return sum(moment.ended - moment.began for moment in self.moments)

    @property
    def longest_idle(self) -> Idle:
        """The longest time in which it was held for nothing."""
        at, site, gaps = self.acquired_at, self.call_site, []
        for moment in self.moments:
            gaps.append(Idle(moment.began - at, site, moment.call_site))
            at, site = moment.ended, moment.call_site
        gaps.append(Idle(self.acquired_at + self.held_seconds - at, site, None))
        return max(gaps, key=lambda gap: gap.seconds)


class Watch:
    """What is put down of one request; make one, and let the request run within `watching()`.

    Attributes:
        leases: in the order in which they began.
        running: the coroutine that serves the request, if one does.
    """

    def __init__(self) -> None:
        use.is_on = True
        self.leases: list[WatchedLease] = []
        self.running: Any = None

    def frame(self) -> Frame | None:
        """Return the code of the application that is at work for the request in this thread, or waits for it."""
        found = frame_of_application()
        return found if is_of_application(found) else frame_awaiting(self.running) or found

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch what runs within the block, and what inherits its context."""
        token = current_watch.set(self)
        try:
            yield
        finally:
            current_watch.reset(token)


current_watch: ContextVar[Watch | None] = ContextVar("dbresilience_watch", default=None)


def watch(lease: Lease) -> None:
    """Let a lease that begins be watched, if its request is."""
    current = current_watch.get()
    if current is None:
        lease.connection.watch = None
        return
    lease.connection.watch = lease.measures = watched = WatchedLease(lease, current)
    current.leases.append(watched)


keep(globals(), "current_watch")
