"""How a cursor is opened: Django's own steps, without those that cost more than taking a connection."""

from __future__ import annotations

import sys
from asyncio import _get_running_loop
from threading import get_ident
from typing import Any

import psycopg
from django.db.backends.base.base import BaseDatabaseWrapper

from . import cursors
from .holding import HoldingMixin


class OpeningMixin(HoldingMixin):
    """Opens cursors that count as use of the lease until they are closed."""

    def create_cursor(self, name: str | None = None) -> Any:
        """Create a cursor that counts as use of the lease until it is closed."""
        connection = self.connection
        assert connection is not None
        if name:
            cursor_class = (
                cursors.LeasedServerBindingServerSideCursor
                if self.settings_dict["OPTIONS"].get("server_side_binding") is True
                else cursors.LeasedServerSideCursor
            )
            cursor = cursor_class(connection, name=name, scrollable=False, withhold=connection.autocommit)
        else:
            cursor = cursors.leased(connection.cursor_factory)(connection)
        self.prepare_loaders(cursor)
        return cursor

    def make_cursor(self, cursor: Any) -> Any:
        """Wrap a cursor so that it raises Django's exceptions."""
        return cursors.LeasedCursorWrapper(cursor, self)

    def _cursor(self, name: str | None = None) -> Any:
        # Between connecting and the new cursor's count: what runs in ensure_connection() may query.
        self._busy += 1
        try:
            if self._lease is None and self.connection is not None:
                self.close_if_health_check_failed()
            self._connect_if_needed()
            cursor = self._prepare_cursor(self.create_cursor(name))
        except BaseException as error:
            self._busy -= 1
            self.release_if_unneeded()
            if isinstance(error, psycopg.Error):
                with self.wrap_database_errors:  # which costs as much as a lock while there is no error
                    raise
            raise
        self._busy -= 1
        return cursor

    def _prepare_cursor(self, cursor: Any) -> Any:
        if self._thread_ident == get_ident() and not self.queries_logged:  # type: ignore[attr-defined]
            return self.make_cursor(cursor)
        try:
            return super()._prepare_cursor(cursor)  # type: ignore[misc]  # not in the stubs
        except BaseException:
            cursor.close()  # refused, for example in the wrong thread: it must not keep the lease
            raise

    def validate_thread_sharing(self) -> None:
        """Refuse another thread, as Django does; the wrapper's own is known without Django's lock."""
        if self._thread_ident != get_ident():  # type: ignore[attr-defined]  # not in the stubs
            super().validate_thread_sharing()

    # Django's `async_unsafe` finds out by an exception that there is no event loop, which costs more
    # than taking a connection. These ask first; where there is a loop, Django decides.

    def cursor(self) -> Any:
        """Open a cursor, as Django does."""
        if _get_running_loop() is not None:
            return super().cursor()
        cursor = self._cursor()
        lease = self._lease
        if lease is not None:
            # A code object costs nothing to remember; a line number would.
            lease.opened_by = sys._getframe(1).f_code
        return cursor

    def _connect_if_needed(self) -> None:
        """Take a connection unless there is one; `ensure_connection` itself stays Django's, for who replaces it."""
        if self.connection is not None:
            return
        if (
            _get_running_loop() is not None
            or self.in_atomic_block
            # Test runners replace it to keep tests from the database.
            or BaseDatabaseWrapper.ensure_connection.__module__ != BaseDatabaseWrapper.__module__
            or "ensure_connection" in self.__dict__
        ):
            self.ensure_connection()
        else:
            try:
                self.connect()
            except psycopg.Error:
                with self.wrap_database_errors:
                    raise
