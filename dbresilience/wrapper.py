"""Django's database wrapper with a lease: takes a connection when work starts, gives it back when
work ends.

`ResilienceMixin` goes before any wrapper derived from Django's PostgreSQL one, e.g. PostGIS. Whoever imports it has the
engine's system checks, log lines, 503 and deadlines, also without the app.

Work starts with a cursor, also within a transaction (see `beginning`). It ends when the last cursor is closed outside
a transaction, or with the outermost transaction. Between the two, Django sees an ordinary connection; before and
afterwards `connection.connection` is None, as after `close()`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property

from . import checks, deadlines, logs, unavailable
from .batches import Batch
from .beginning import BeginningMixin
from .compilers import our_compilers
from .errors import note_alias
from .identity import database_of
from .measures import BATCH, CLOSE, PINNED
from .resources import close_database
from .session import set_all, wanted_settings


@cache
def _greeting_anew(editor_class: type[Any]) -> type[Any]:
    class SchemaEditor(editor_class):  # type: ignore[misc]  # a class that is not known before
        def __exit__(self, *exception: Any) -> None:
            super().__exit__(*exception)
            self.connection.greet_anew()

    return SchemaEditor


class _ErrorsOfAlias(DatabaseErrorWrapper):
    """Makes Django's errors of psycopg's, and notes whose they are."""

    wrapper: Any

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None:
            note_alias(error, self.wrapper.alias)
            super().__exit__(kind, error, trace)


class ResilienceMixin(BeginningMixin):
    """Leases connections from this process's pool; see the module for when."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Where Django keeps the module once it is imported.
        self.ops._cache = our_compilers(self.ops.compiler_module, type(self.ops))  # type: ignore[attr-defined,arg-type]

    @cached_property
    def wrap_database_errors(self) -> DatabaseErrorWrapper:
        """Django's, for errors of this alias."""
        return _ErrorsOfAlias(self)

    def close_pool(self) -> None:
        """Close this process's pools for this database; the next query opens them again."""
        if not self.in_atomic_block and self.autocommit:
            self._give_back(CLOSE)
        close_database(database_of(self.settings_dict), "close_pool() was called")

    def ensure_timezone(self) -> bool:
        """Adopt a changed time zone; connections made before are not used again."""
        if not self._pooled:
            return super().ensure_timezone()
        if self._lease is None:
            return False
        self._lease.discard = True
        connection, configuration = self._lease.connection, self.resources.configuration
        return set_all(connection, wanted_settings(connection, configuration, self.timezone_name, None))

    def close_if_unusable_or_obsolete(self) -> None:
        """Close as Django does, and also what was lost by an error that it does not know, `CommitOutcomeUnknown`."""
        if self._lease is None and self.connection is not None and self.connection.closed:
            self.errors_occurred = True
        self._request_ends = True
        try:
            super().close_if_unusable_or_obsolete()
        finally:
            self._request_ends = False

    def close_if_health_check_failed(self) -> None:
        """Nothing to do for a lease: liveness is looked at when a connection is acquired."""
        if self._lease is None and self.connection is not None:
            super().close_if_health_check_failed()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep one connection for a block; see `dbresilience.pinned`."""
        self._busy += 1
        try:
            self.ensure_connection()
            self._pins += 1
        finally:
            self._busy -= 1
        try:
            yield
        finally:
            self._pins -= 1
            self.release_if_unneeded(PINNED)

    def begin_batch(self) -> Batch:
        """Hold a connection, and let statements wait in what is returned until `end_batch`; see `batches`."""
        self._busy += 1
        try:
            self._connect_if_needed()
            return self.connection.enter_batch(self)  # type: ignore[no-any-return]  # it is one of ours
        except BaseException:
            self._busy -= 1
            self.release_if_unneeded(BATCH)
            raise

    def end_batch(self, batch: Batch) -> None:
        """Let nothing more wait, and give the connection back if nothing else needs it."""
        batch.leave()
        self._busy -= 1
        self.release_if_unneeded(BATCH)

    # Without time of their own, a savepoint that ran out of it would spoil the transaction around it.

    def _savepoint(self, sid: str) -> None:
        if self.batch is not None:
            self.batch.end_function()  # what begins a transaction is more than a statement
        super()._savepoint(sid)  # type: ignore[misc]  # not in the stubs

    def _savepoint_rollback(self, sid: str) -> None:
        batch = self.batch
        if batch is not None:
            batch.drop(back_to=self.ops.savepoint_create_sql(sid))
        with self._time_to_clean_up():
            super()._savepoint_rollback(sid)  # type: ignore[misc]  # not in the stubs
            self.send_waiting()
        if batch is not None and batch.is_told_by(sys.exc_info()[1]):
            batch.failure = None  # it is undone, and whoever is around this block hears of it

    def set_rollback(self, rollback: bool) -> None:
        """Set whether to roll back; who says that there is no need to has dealt with what had failed.

        What waits is sent before, since a dry run is there to find errors.
        """
        if rollback:
            self.send_waiting()
        super().set_rollback(rollback)
        if not rollback and self.batch is not None:
            self.batch.failure = None

    def _savepoint_commit(self, sid: str) -> None:
        # Django releases a savepoint also after it has rolled back to it.
        was_broken, is_empty = self.needs_rollback, self.batch is None or not self.batch.waiting
        with self._time_to_clean_up():
            try:
                super()._savepoint_commit(sid)  # type: ignore[misc]  # not in the stubs
                if not is_empty:
                    self.send_waiting()  # the errors of what is within are its own
            except BaseException:
                self.needs_rollback = was_broken  # else Django could not go back to the savepoint, which it does now
                raise

    def send_waiting(self) -> None:
        """Send what waits in the batch, if anything does."""
        if self.connection is not None and self.batch is not None:
            with self.wrap_database_errors:
                self.connection.send_waiting()

    def _time_to_clean_up(self) -> AbstractContextManager[None]:
        return nullcontext() if self.connection is None else self.connection.time_to_clean_up(even_if_over=True)

    def schema_editor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a schema editor; connections greet their receivers anew afterwards.

        Migrations create types (hstore, citext) whose adapters connection_created registers.
        """
        self.greet_anew()
        editor = super().schema_editor(*args, **kwargs)
        editor.__class__ = _greeting_anew(type(editor))
        return editor

    def greet_anew(self) -> None:
        """Let each connection send connection_created again when it is taken next."""
        pool = self.resources.pool
        if pool is not None:
            for connection in pool.recovery.physical.all():
                connection.announced = False


# Here and not in `base`, which an engine composed with the mixin never imports.
checks.register_all()
logs.connect_receivers()
unavailable.install()
deadlines.install()
