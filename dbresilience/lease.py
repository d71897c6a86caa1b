"""One connection in use: who holds it, since when, and what still needs it."""

from __future__ import annotations

import threading
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from . import signals
from .signals import emit
from .slow_queries import Frame, call_site, current_request, shortened

if TYPE_CHECKING:
    from types import CodeType

    import psycopg

    from .connection import ResilientConnection
    from .generation import Generation
    from .measures import Measures
    from .pool import Pool
    from .transaction_ids import TransactionId
    from .watching import WatchedLease


class Holder(Protocol):
    """Who took the lease: Django's wrapper of this thread."""

    thread: threading.Thread

    @property
    def allow_thread_sharing(self) -> bool: ...

    @property
    def is_pinned(self) -> bool: ...

    def release_if_unneeded(self) -> None: ...

    def forget_connection(self) -> None: ...

    def can_exchange(self, cursor: Any) -> bool: ...

    def exchange_connection(self, cursor: Any) -> None: ...


class Lease:
    """A connection between acquire and release.

    `cursors` counts what still needs the connection. It is touched by the holder's thread only;
    ending a lease is safe from any thread (see `Pool.release`). `holder` is None once the connection
    was given back: what still refers to it then must not use it. `needs_reset` says that its session was
    left with something the next borrower must not meet, `kept` that it therefore lasts as long as the request,
    `transaction_id` how to look up what became of it, and
    `is_by_hand` that there may be a transaction that Django does not know of. `seen_at` is when the server
    answered last, and `measures` where durations are put down, if anybody wants to know.
    """

    __slots__ = (
        "acquired_at",
        "connection",
        "cursors",
        "discard",
        "generation",
        "holder",
        "is_by_hand",
        "kept",
        "last_error",
        "last_query",
        "measures",
        "needs_reset",
        "opened_by",
        "pool",
        "request",
        "seen_at",
        "transaction_id",
        "wait_seconds",
    )

    def __init__(
        self,
        holder: Holder,
        connection: ResilientConnection,
        pool: Pool,
        generation: Generation,
        asked_at: float,
    ) -> None:
        self.holder: Holder | None = holder
        self.connection = connection
        connection.writes = 0
        self.pool = pool
        self.generation = generation
        self.measures: Measures | WatchedLease | None = pool.measures
        self.acquired_at = self.seen_at = now = perf_counter()
        self.wait_seconds = now - asked_at
        self.cursors = 0
        self.discard = False
        self.needs_reset = False
        self.kept = False
        self.transaction_id: TransactionId | None = None
        self.is_by_hand = False
        self.last_query: Any = None
        self.opened_by: CodeType | None = None
        self.request = current_request.get()
        self.last_error: psycopg.Error | None = None

    @property
    def is_orphaned(self) -> bool:
        """Whether the thread that took the connection ended without giving it back."""
        holder = self.holder
        return holder is not None and not holder.thread.is_alive() and not holder.allow_thread_sharing

    @property
    def lacks_transaction_id(self) -> bool:
        """Whether the id of its transaction is to be asked for: it is not known, and the server can tell."""
        return self.transaction_id is None and self.connection.cluster is not None

    def note_session_state(self) -> None:
        """Note that a statement left something on the session."""
        self.connection.has_session_state = True
        holder = self.holder
        # What is set while a new connection is greeted belongs to it; see connection_created.
        if holder is None or not self.connection.announced:
            return
        if self.needs_reset:
            return
        self.needs_reset = True
        if not holder.is_pinned and self.pool.lease_ends_with_transaction:
            self.kept = True
            if signals.connection_kept.receivers:
                emit(signals.connection_kept, self.pool.alias, reason="session state", call_site=call_site())

    def report_open_cursor(self) -> None:
        """Say that the lease ends although a cursor is open, and who opened the last one."""
        if not signals.cursor_left_open.receivers:
            return
        code = self.opened_by
        emit(
            signals.cursor_left_open,
            self.pool.alias,
            opened_by=f"{code.co_qualname} ({code.co_filename}:{code.co_firstlineno})" if code else "unknown code",
            query=self.last_query_text,
            held_seconds=self.held_seconds,
        )

    @property
    def last_query_text(self) -> str:
        """The last statement without parameters, shortened; of several that were sent together, the one under way."""
        batch = self.connection.batch
        query = (None if batch is None else batch.query_under_way) or self.last_query
        if query is None:
            return "no statement yet"
        return shortened(query if isinstance(query, str) else type(query).__name__)

    def describe(self) -> str:
        """Say who holds the connection, for how long, and what it did last; without parameters."""
        who = f"{self.request.method} {self.request.path}" if self.request else "no request"
        thread = self.holder.thread.name if self.holder is not None else "nobody"
        return f"{who} in {thread} for {self.held_seconds:.1f} s ({self.last_query_text})"

    @property
    def held_seconds(self) -> float:
        """Seconds since the connection was acquired."""
        return perf_counter() - self.acquired_at

    def note_statement(
        self,
        query: Any,
        seconds: float | None,
        ended: float,
        failure: psycopg.Error | None,
        site: Frame | None = None,
    ) -> float:
        """Note that the server has answered a statement, and put down how long it took.

        Args:
            query: its text.
            seconds: how long it took; None if that is known already.
            ended: when the answer came, by `time.perf_counter`.
            failure: its error.
            site: from where it was executed, if not from here.

        Returns:
            How long the connection was waited for, in seconds, to the first of the lease; 0 to others.
        """
        self.seen_at = ended
        if seconds is not None and self.measures is not None:
            self.measures.add_statement(query, seconds, failure, site)
        wait_seconds, self.wait_seconds = self.wait_seconds, 0.0
        return wait_seconds

    def cursor_closed(self) -> None:
        """Note that a cursor ended; the holder decides whether the connection goes back."""
        self.cursors -= 1
        if self.cursors <= 0 and self.holder is not None:
            self.holder.release_if_unneeded()
