"""A statement at its request's deadline: cancelled, and if even that is not answered, cut off from our side."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from inspect import signature
from time import perf_counter
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg import capabilities
from psycopg.pq import TransactionStatus

from .deadlines import Allowance, current_allowance, deadline
from .errors import StatementOverdue

if TYPE_CHECKING:
    from .batches import Batch
    from .connection import ResilientConnection
    from .lease import Lease
    from .observer import ConnectionObserver
    from .watching import WatchedLease

    _Connection = psycopg.Connection[Any]
else:
    _Connection = object

TICK_SECONDS = 0.1
"""How long psycopg waits without looking at signals such as Ctrl-C; its own default."""
SUSPICIOUS_SECONDS = 3.0
"""Silence after which somebody else finds out whether the server answers at all; asked again as it doubles."""
QUIET_SECONDS = 0.5
"""The last part of it, in which the socket itself is watched: psycopg's own time-out is for a statement as a whole."""
LEAST_PATIENCE_SECONDS = 0.05
MOST_PATIENCE_SECONDS = 1.0
CLEANUP_SECONDS = 1.0
"""What COMMIT, ROLLBACK and the cleaning of a session may take when a deadline is near or over."""


_IDLE = int(TransactionStatus.IDLE)

# From psycopg 3.3.9 on, or a little before.
_WaitTimeout: Any = getattr(psycopg.errors, "_WaitTimeout", None)
_NOTHING_TO_ADD = nullcontext()
_WAITS_WITH_TIMEOUT = _WaitTimeout is not None and "timeout" in signature(psycopg.Connection.wait).parameters


class _Expired(Exception):
    """The time for a wait is over."""


def _until(
    gen: Generator[Any, Any, Any], at: float, quiet_seconds: float, suspect: Callable[[], None]
) -> Generator[Any, Any, Any]:
    patience = SUSPICIOUS_SECONDS
    suspicious_at = perf_counter() + quiet_seconds
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            wanted = gen.send(ready)
            # Asked after going on, so that an answer which is complete is one, and rows that trickle in are late, too.
            now = perf_counter()
            if now >= at:
                raise _Expired
            if ready:
                suspicious_at = now + patience
            elif now >= suspicious_at:
                suspicious_at = now + patience
                patience *= 2
                suspect()
    except StopIteration as done:
        return done.value


class DeadlineMixin(_Connection):
    """Ends what it waits for when the allowance of the request is used up (see `deadlines`)."""

    deadline_seconds: float | None = None
    """`deadline_seconds` of its alias."""

    connect_seconds = 0.0
    """How long connecting took, or the quickest of its pool: a measure of how far away the server is."""

    batch: Batch | None = None
    lease: Lease | None = None
    observer: ConnectionObserver | None = None
    end_reason: str

    watch: WatchedLease | None = None
    """Where what it waits for is put down, while its request is watched."""

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """Wait as psycopg does, but no longer than the request may.

        Raises:
            psycopg.errors.QueryCanceled: the statement took too long and the server ended it.
            StatementOverdue: the server did not answer, or the time was over before the statement was sent.
        """
        if self.watch is not None:
            gen = self.watch.counting(gen)
        allowance = current_allowance()
        # Who gives times of their own means them.
        if allowance is None or args or kwargs or not self._serves(allowance):
            return super().wait(gen, *args, **kwargs)
        left = allowance.remaining(self.deadline_seconds)
        if left is None:
            return super().wait(gen)
        if left <= 0:
            error = StatementOverdue("The request's deadline had passed before this statement.")
            error.was_sent = self.pgconn.transaction_status == TransactionStatus.ACTIVE
            raise error
        started, quiet_seconds = perf_counter(), SUSPICIOUS_SECONDS
        try:
            if _WAITS_WITH_TIMEOUT:
                # psycopg's own is quicker, and nearly every statement is answered before anything is suspected.
                unwatched_seconds = SUSPICIOUS_SECONDS - QUIET_SECONDS
                try:
                    return super().wait(gen, timeout=min(left, unwatched_seconds))
                except _WaitTimeout:
                    if left <= unwatched_seconds:
                        raise _Expired from None
                left -= unwatched_seconds
                quiet_seconds = QUIET_SECONDS
            return self._wait_until(gen, left, quiet_seconds)
        except _Expired:
            return self._end(gen, perf_counter() - started, allowance)
        finally:
            allowance.spend(perf_counter() - started)

    def _serves(self, allowance: Allowance) -> bool:
        # The pool's own work on a connection belongs to no request, whatever its thread has inherited.
        return self.lease is not None or self.observer is None or allowance.is_explicit

    def _wait_until(self, gen: Any, seconds: float, quiet_seconds: float = SUSPICIOUS_SECONDS) -> Any:
        # Equal ticks, so that one falls on the deadline; psycopg cuts them to whole milliseconds.
        tick = math.ceil(1000 * seconds / math.ceil(seconds / TICK_SECONDS)) / 1000 + 0.0001
        return super().wait(_until(gen, perf_counter() + seconds, quiet_seconds, self._suspect), interval=tick)

    def _end(self, gen: Any, waited_seconds: float, allowance: Allowance) -> Any:
        """Cancel what runs and return its result if it was quicker."""
        patience = min(max(LEAST_PATIENCE_SECONDS, 2 * self.connect_seconds), MOST_PATIENCE_SECONDS)
        was_cancelled = self._cancel(patience)
        if was_cancelled and self._pipeline is None:
            try:
                return self._wait_until(gen, patience)
            except psycopg.errors.QueryCanceled as error:
                error.add_note(f"It was cancelled at the deadline of its request, after {waited_seconds:.1f} s.")
                self._tell(allowance, answered=True)
                raise
            except _Expired:
                pass
        self.end_reason = "deadline_exceeded"
        self.close()
        self._tell(allowance, answered=False, is_server_silent=not was_cancelled)
        allowance.outage = StatementOverdue(
            f"The server did not answer within {waited_seconds:.1f} s, which was the request's deadline, "
            f"{'although it was asked to cancel' if was_cancelled else 'nor when it was asked to cancel'}."
        )
        raise allowance.outage

    def _suspect(self) -> None:
        observer = self._who_hears
        if observer is not None:
            observer.connection_silent()

    def _cancel(self, seconds: float) -> bool:
        """Ask the server to cancel; whether it took the request in time."""
        if capabilities.has_cancel_safe():
            try:
                self.cancel_safe(timeout=seconds)
            except psycopg.Error:
                return False
            return True
        # Before libpq 17 this call knows no time-out.
        done = threading.Event()

        def cancel() -> None:
            try:
                self.cancel()
            except psycopg.Error:
                return
            done.set()

        threading.Thread(target=cancel, name="dbresilience-cancel", daemon=True).start()
        return done.wait(seconds)

    @property
    def _who_hears(self) -> ConnectionObserver | None:
        # One that is closed has no observer any more.
        return self.observer or (None if self.lease is None else self.lease.generation)

    def _tell(self, allowance: Allowance, *, answered: bool, is_server_silent: bool = False) -> None:
        observer = self._who_hears
        if observer is not None:
            observer.connection_overdue(
                cast("ResilientConnection", self),
                deadline_seconds=allowance.limit(self.deadline_seconds),
                answered=answered,
                is_server_silent=is_server_silent,
            )

    def set_autocommit(self, value: bool) -> None:
        """Set it as psycopg does: nothing is sent for it, so it takes no time, also when the deadline is over."""
        if self.pgconn.transaction_status == _IDLE:
            self._autocommit = bool(value)  # which is all that psycopg does then, and the quickest
            return
        with self.lock:
            super().wait(self._set_autocommit_gen(value))

    def commit(self) -> None:
        """Commit as psycopg does; once begun it has a second, since a COMMIT that is cut off leaves a doubt.

        Statements that wait for it have what is left.
        """
        waits = self.batch is not None and self.batch.waiting
        with _NOTHING_TO_ADD if waits else self.time_to_clean_up(even_if_over=False):
            super().commit()

    def rollback(self) -> None:
        """Roll back as psycopg does, also when the deadline is over."""
        with self.time_to_clean_up(even_if_over=True):
            super().rollback()

    def time_to_clean_up(self, *, even_if_over: bool) -> AbstractContextManager[None]:
        """Have `CLEANUP_SECONDS` at least for what ends a transaction or undoes a part of it.

        Args:
            even_if_over: whether also when no time is left at all.
        """
        allowance = current_allowance()
        left = None if allowance is None else allowance.remaining(self.deadline_seconds)
        if left is None or left >= CLEANUP_SECONDS or (left <= 0 and not even_if_over):
            return _NOTHING_TO_ADD
        return deadline(CLEANUP_SECONDS)
