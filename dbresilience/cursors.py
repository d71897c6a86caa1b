"""Cursors that count as use of the lease, time their statements, and stop when the lease is over.

They subclass Django's own, with the same constructor, so the debug toolbar and other wrappers see
nothing new. What they all do is in `executing`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import psycopg
from django.db.backends.postgresql.base import ServerSideCursor
from django.db.backends.utils import CursorWrapper

from .executing import LeasedCursorMixin
from .messages import TextCursorMixin

_FETCH = "FETCH"


class LeasedNamedCursorMixin(LeasedCursorMixin):
    """A named cursor asks the server for each batch of rows, and to close it."""

    can_move = False

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
    """Django's, without the function and the context manager that it makes for each fetch."""

    def close(self) -> None:
        """Close the cursor."""
        self.cursor.close()

    def fetchone(self) -> Any:
        """Fetch as psycopg does, with Django's exceptions."""
        try:
            return self.cursor.fetchone()
        except psycopg.Error:
            with self.db.wrap_database_errors:
                raise

    def fetchmany(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch as psycopg does, with Django's exceptions."""
        try:
            return self.cursor.fetchmany(*args, **kwargs)
        except psycopg.Error:
            with self.db.wrap_database_errors:
                raise

    def fetchall(self) -> Any:
        """Fetch as psycopg does, with Django's exceptions."""
        try:
            return self.cursor.fetchall()
        except psycopg.Error:
            with self.db.wrap_database_errors:
                raise


class LeasedServerSideCursor(LeasedNamedCursorMixin, ServerSideCursor):
    """A named cursor, for ``QuerySet.iterator()``."""


@cache
def leased(cursor_factory: type[Any]) -> type[Any]:
    """Return the cursor class that is `cursor_factory` and counts as use of the lease."""
    if issubclass(cursor_factory, LeasedCursorMixin):
        return cursor_factory
    mixin = TextCursorMixin if issubclass(cursor_factory, psycopg.ClientCursor) else LeasedCursorMixin
    return type(f"Leased{cursor_factory.__name__}", (mixin, cursor_factory), {})


class LeasedServerBindingServerSideCursor(LeasedNamedCursorMixin, psycopg.ServerCursor[Any]):
    """A named cursor with server-side binding."""
