"""Cursors that count as use of the lease, time their statements, and stop when the lease is over.

They subclass Django's own, with the same constructor, so the debug toolbar and other wrappers see
nothing new.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import current_thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg
from django.db.backends.postgresql.base import ServerSideCursor
from django.db.backends.utils import CursorWrapper
from psycopg.pq import ConnStatus

from .errors import OUTCOME_LOST, RAISED_BY_CLIENT, RAISED_BY_OWN_READ_ONLY, is_session_lost, mark, was_sent
from .session_state import traits_of

if TYPE_CHECKING:
    from .lease import Lease

    _Cursor = psycopg.Cursor[Any]
else:
    _Cursor = object


_FETCH = "FETCH"


class LeasedCursorMixin(_Cursor):
    """What all of ours do."""

    _lease: Lease | None = None
    _counts = False
    """Whether the lease waits for this cursor to be closed."""

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        self._log = getattr(connection, "slow_query_log", None)
        self._lease = getattr(connection, "lease", None)
        self._counts = self._lease is not None
        if self._lease is not None:
            self._lease.cursors += 1

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Execute as psycopg does; see `slow_queries` for what is timed."""
        self._begin(query)
        started = perf_counter()
        try:
            return super().execute(query, params, **kwargs)
        except psycopg.Error as error:
            self._note(error, query)
            raise
        finally:
            self._ran(query, params, perf_counter() - started)

    def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        """Execute as psycopg does; the whole batch is one entry of the slow-query log."""
        self._begin(query)
        started = perf_counter()
        try:
            return super().executemany(query, params_seq, **kwargs)
        except psycopg.Error as error:
            self._note(error, query)
            raise
        finally:
            self._ran(query, None, perf_counter() - started)

    @contextmanager
    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Copy as psycopg does."""
        self._begin(statement)
        with self._noting(statement), super().copy(statement, *args, **kwargs) as copy:
            yield copy

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Stream as psycopg does."""
        self._begin(query)
        with self._noting(query):
            yield from super().stream(query, *args, **kwargs)

    def leave_lease(self) -> None:
        """Stop counting as use of the lease."""
        if self._counts and self._lease is not None:
            self._counts = False
            self._lease.cursors -= 1

    def close(self) -> None:
        """Close the cursor; the last one outside a transaction gives the connection back."""
        counted, self._counts = self._counts, False
        try:
            self._close_quietly()
        finally:
            if counted and self._lease is not None:
                self._lease.cursor_closed()

    def _close_quietly(self) -> None:
        super().close()

    def __del__(self, *args: Any) -> None:
        """A cursor that nobody closed is no reason to keep the lease."""
        if self._counts:
            self._counts = False
            holder = self._lease.holder if self._lease is not None else None
            # The lease belongs to its thread; the garbage collector may run in any.
            if holder is not None and holder.thread is current_thread():
                self._lease.cursor_closed()  # type: ignore[union-attr]  # it has a holder

    def _ran(self, query: Any, params: Any, seconds: float) -> None:
        """Log a slow statement. The wait for the connection belongs to the first of its lease."""
        wait_seconds = 0.0
        lease = self._lease
        if lease is not None and lease.wait_seconds:
            wait_seconds, lease.wait_seconds = lease.wait_seconds, 0.0
        if self._log is not None and seconds >= self._log.threshold_seconds:
            self._log.report(self, query, params, seconds, wait_seconds)

    def _begin(self, query: Any) -> None:
        lease = self._lease
        if lease is not None:
            self._check_lease()
            lease.last_query = query
            traits = traits_of(query, self.connection)
            if traits is not None:
                lease.writes = lease.writes or traits.writes
                if traits.leaves_state:
                    lease.note_session_state()

    def _check_lease(self) -> None:
        if self._lease is not None and self._lease.holder is None:
            raise psycopg.InterfaceError("The connection of this cursor was given back to its pool.")

    @contextmanager
    def _noting(self, query: Any) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            self._note(error, query)
            raise

    def _note(self, error: psycopg.Error, query: Any) -> None:
        """Remember the error for the end of the lease, with what only the connection knows."""
        connection = self.connection
        if error.sqlstate is None and connection.pgconn.status == ConnStatus.OK:
            mark(error, RAISED_BY_CLIENT)
        elif connection.autocommit and is_session_lost(error) and was_sent(error):
            traits = traits_of(query, connection)
            if traits is not None and traits.writes:
                mark(error, OUTCOME_LOST)
        elif error.sqlstate == "25006" and not getattr(connection, "is_read_only_server", True):
            mark(error, RAISED_BY_OWN_READ_ONLY)
        if self._lease is not None:
            self._lease.last_error = error


class LeasedNamedCursorMixin(LeasedCursorMixin):
    """A named cursor asks the server for each batch of rows, and to close it."""

    def fetchone(self) -> Any:
        """Fetch as psycopg does."""
        self._check_lease()
        with self._noting(_FETCH):
            return super().fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch as psycopg does."""
        self._check_lease()
        with self._noting(_FETCH):
            return super().fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        """Fetch as psycopg does."""
        self._check_lease()
        with self._noting(_FETCH):
            return super().fetchall()

    def __del__(self, *args: Any) -> None:
        """Let psycopg warn of it, too."""
        super().__del__()
        psycopg.ServerCursor.__del__(self, *args)  # type: ignore[arg-type]  # a mixin of one

    def _close_quietly(self) -> None:
        if self._lease is not None and self._lease.holder is None:
            # It went with its session's transaction; CLOSE would be sent to another holder's.
            psycopg.Cursor.close(self)
        else:
            super()._close_quietly()


class LeasedCursorWrapper(CursorWrapper):
    """Django's, which builds a function around each fetch, without that."""

    def close(self) -> None:
        """Close the cursor."""
        self.cursor.close()

    def fetchone(self) -> Any:
        """Fetch as psycopg does, with Django's exceptions."""
        with self.db.wrap_database_errors:
            return self.cursor.fetchone()

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch as psycopg does, with Django's exceptions."""
        with self.db.wrap_database_errors:
            return self.cursor.fetchmany(*args, **kwargs)

    def fetchall(self) -> Any:
        """Fetch as psycopg does, with Django's exceptions."""
        with self.db.wrap_database_errors:
            return self.cursor.fetchall()


class LeasedServerSideCursor(LeasedNamedCursorMixin, ServerSideCursor):
    """A named cursor, for ``QuerySet.iterator()``."""


@cache
def leased(cursor_factory: type[Any]) -> type[Any]:
    """Return the cursor class that is `cursor_factory` and counts as use of the lease."""
    if issubclass(cursor_factory, LeasedCursorMixin):
        return cursor_factory
    return type(f"Leased{cursor_factory.__name__}", (LeasedCursorMixin, cursor_factory), {})


class LeasedServerBindingServerSideCursor(LeasedNamedCursorMixin, psycopg.ServerCursor[Any]):
    """A named cursor with server-side binding."""
