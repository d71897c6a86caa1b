"""`gather()`: reads that do not depend on each other, in one round trip on one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.models import QuerySet
from django.db.models.sql.compiler import cursor_iter
from django.db.models.sql.constants import CURSOR, GET_ITERATOR_CHUNK_SIZE

from . import signals
from .batches import IS_SUPPORTED, Batch, NotSentYet, Waiting
from .errors import classify
from .meanings import READ
from .session_state import is_plain_read
from .signals import emit
from .units import retries_are_off

Read = QuerySet[Any, Any] | Callable[[], Any]


def gather(*reads: Read, using: str = DEFAULT_DB_ALIAS) -> list[Any]:
    """Return what each read returns: one round trip to each database that they ask, in a transaction or outside.

    Args:
        reads: querysets, each evaluated to a list; or functions without arguments that make one query, such as
            ``queryset.count``, ``queryset.exists`` or ``lambda: Thread.objects.get(pk=1)``. Functions are called twice,
            the first time no further than their query. What else they ask for, and what `prefetch_related` does,
            costs round trips of its own.
        using: the alias that functions ask.

    Raises:
        TypeError: something else is to be read.
        Exception: what a read raises, with a note that tells which it was; what was lost with its session is read
            again first, outside a transaction.
    """
    for number, read in enumerate(reads, 1):
        if not isinstance(read, QuerySet) and not callable(read):
            raise TypeError(f"gather() reads querysets and functions; its read number {number} is {read!r}.")
    aliases = dict.fromkeys(read.db if isinstance(read, QuerySet) else using for read in reads)
    wrappers = [connections[alias] for alias in aliases]
    if not all(IS_SUPPORTED and hasattr(wrapper, "batching") for wrapper in wrappers):
        return [list(read) if isinstance(read, QuerySet) else read() for read in reads]
    for attempt in range(1, 1000):
        trip = _Trip(reads, wrappers, using)
        try:
            return trip.make()
        except Error as error:
            if not trip.may_go_again(error, attempt):
                raise
            trip.go_again(error, attempt)
    raise AssertionError("the number of attempts is limited")


class _Trip:
    """One attempt."""

    def __init__(self, reads: Sequence[Read], wrappers: list[Any], using: str) -> None:
        self._reads = reads
        self._wrappers = wrappers
        self._using = using
        self._is_free = not any(wrapper.in_atomic_block or not wrapper.get_autocommit() for wrapper in wrappers)
        self._statements: list[Waiting] = []

    def make(self) -> list[Any]:
        with ExitStack() as stack:
            for wrapper in self._wrappers:
                batch = stack.enter_context(wrapper.batching())
                stack.callback(self._end, batch, len(batch.waiting))
            prepared = [self._told(number, self._prepare, read) for number, read in enumerate(self._reads, 1)]
            for wrapper in self._wrappers:
                self._statements += wrapper.connection.batch.waiting
                with wrapper.wrap_database_errors:
                    wrapper.connection.send_waiting()
            return [self._told(number, finish) for number, finish in enumerate(prepared, 1)]

    def _end(self, batch: Batch, before: int) -> None:
        # What was not sent or not evaluated, because another read failed.
        unsent = batch.waiting[before:]
        del batch.waiting[before:]
        for statement in (*self._statements, *unsent):
            statement.cursor.close()

    def _told(self, number: int, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except Exception as error:
            error.add_note(f"It was raised by read number {number} of gather().")
            raise

    def _prepare(self, read: Read) -> Callable[[], Any]:
        """Let a read wait; returns what makes its result of the answer."""
        if isinstance(read, QuerySet):
            return _prepare_queryset(read)
        wrapper: Any = connections[self._using]
        return _prepare_function(read, wrapper.connection.batch)

    def may_go_again(self, error: Error, attempt: int) -> bool:
        pools = [wrapper.resources.pool for wrapper in self._wrappers]
        return (
            self._is_free
            and not retries_are_off.get()
            and classify(error).retry == READ
            and all(pool is not None and attempt < pool.configuration.retry_attempts for pool in pools)
            and all(is_plain_read(statement.query) for statement in self._statements)
        )

    def go_again(self, error: Error, attempt: int) -> None:
        cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
        for wrapper in self._wrappers:
            wrapper.close()
            emit(
                signals.read_repeated,
                wrapper.alias,
                attempt=attempt,
                classification=classify(error),
                exception=cause,
            )


def _prepare_queryset(read: QuerySet[Any, Any]) -> Callable[[], list[Any]]:
    if read._result_cache is not None:
        return lambda: list(read)
    queryset: Any = read.all()
    compiler = queryset.query.get_compiler(using=queryset.db)
    cursor = compiler.execute_sql(CURSOR)

    def answer(*args: Any, **kwargs: Any) -> Iterator[Any]:
        if cursor is None:  # nothing can match
            return iter([])
        columns = compiler.col_count if compiler.has_extra_select else None
        sentinel = compiler.connection.features.empty_fetchmany_value
        return iter(list(cursor_iter(cursor, sentinel, columns, GET_ITERATOR_CHUNK_SIZE)))

    def finish() -> list[Any]:
        # The queryset makes its objects as ever, of rows that are there already.
        compiler.execute_sql = answer
        queryset.query.get_compiler = lambda *args, **kwargs: compiler
        return list(queryset)

    return finish


def _prepare_function(read: Callable[[], Any], batch: Batch) -> Callable[[], Any]:
    before = len(batch.waiting)
    batch.is_collecting = True
    try:
        result = read()
    except NotSentYet:
        pass
    else:
        return lambda: result  # it needed no query
    finally:
        batch.is_collecting = False
    [statement] = batch.waiting[before:]

    def finish() -> Any:
        result = statement.cursor.pgresult
        assert result is not None
        batch.answered = statement, result
        try:
            return read()
        finally:
            batch.answered = None

    return finish
