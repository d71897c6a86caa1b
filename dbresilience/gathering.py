"""`gather()`: reads that do not depend on each other, in one round trip on one connection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import count
from time import perf_counter
from typing import Any

import psycopg
from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.models import QuerySet
from django.db.models.sql.compiler import cursor_iter
from django.db.models.sql.constants import CURSOR, GET_ITERATOR_CHUNK_SIZE
from psycopg.pq.abc import PGresult

from . import signals
from .batches import IS_SUPPORTED, Batch, NotSentYet, Waiting
from .errors import classify
from .meanings import READ
from .recognising import recognised
from .rehearsing import Rehearsal
from .repeating import LONGEST_READ_SECONDS
from .session_state import is_plain_read
from .signals import emit
from .units import retries_are_off

Read = QuerySet[Any, Any] | Callable[[], Any]


def gather(*reads: Read, using: str = DEFAULT_DB_ALIAS) -> list[Any]:
    """Return what each read returns: one round trip to each database that they ask, in a transaction or outside.

    Args:
        reads: querysets, each evaluated to a list; or functions without arguments that make one query, such as
            ``queryset.count``, ``queryset.exists`` or ``lambda: Thread.objects.get(pk=1)``. Functions are called twice,
            the first time no further than their query; `count` and `exists` of Django's querysets once. What else they
            ask for, and what `prefetch_related` does, costs round trips of its own; so does a function that begins a
            transaction.
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
        self._using: Any = connections[using]
        # Whether all may be asked again when they were lost.
        self._is_free = not any(
            wrapper.in_atomic_block or not wrapper.get_autocommit() or wrapper.is_bound for wrapper in wrappers
        )
        self._began = perf_counter()
        self._statements: dict[int, tuple[int, Waiting]] = {}
        """What was let wait, and the number of its read."""

    def make(self) -> list[Any]:
        # Before a connection is held and after it is given back, as far as that goes.
        compiled = _each(self._reads, lambda read: _Compiled(read) if isinstance(read, QuerySet) else read)
        results = self._ask(compiled)
        return _each(results, lambda result: result.objects() if isinstance(result, _Compiled) else result)

    def _ask(self, reads: list[Any]) -> list[Any]:
        """Return the result of each function, and each queryset with its rows."""
        with ExitStack() as stack:
            batches = [stack.enter_context(wrapper.batching()) for wrapper in self._wrappers]
            stack.callback(self._end, batches)
            numbers = count(1)
            finishing = _each(reads, lambda read: self._prepare(next(numbers), read))
            self._began = perf_counter()
            for wrapper, batch in zip(self._wrappers, batches, strict=True):
                self._send(wrapper, batch)
            self._is_free = False  # from here on each goes again by itself, if at all
            results = _each(finishing, lambda finish: finish())
            for wrapper in self._wrappers:
                wrapper.send_waiting()  # what a function did and did not ask for
            return results

    def _send(self, wrapper: Any, batch: Batch) -> None:
        batch.failed = None
        try:
            wrapper.send_waiting()
        except Error as error:
            number, _ = self._statements.get(id(batch.failed), (None, None))
            if number is not None:
                _tell(error, number)
            raise

    def _end(self, batches: list[Batch]) -> None:
        """Forget what was not sent or not evaluated, because another read failed."""
        for batch in batches:
            batch.forget(statement for _, statement in self._statements.values())
        for _, statement in self._statements.values():
            if not statement.cursor.closed:
                statement.cursor.close()

    def _prepare(self, number: int, read: Any) -> Callable[[], Any]:
        """Let a read wait; returns what makes its result of the answer."""
        is_queryset = isinstance(read, _Compiled)
        wrapper: Any = connections[read.alias] if is_queryset else self._using
        batch: Batch = wrapper.connection.batch
        known = {id(statement) for statement in batch.waiting}
        finish = read.execute() if is_queryset else self._prepare_function(read, wrapper, batch, known)
        self._statements |= {id(statement): (number, statement) for statement in batch.since(known)}
        return finish

    def _prepare_function(self, read: Any, wrapper: Any, batch: Batch, known: set[int]) -> Callable[[], Any]:
        """Call it as far as its query; returns what gives its result."""
        read, result_of = recognised(read)
        rehearsal, result = Rehearsal(wrapper), None
        batch.is_collecting, batch.has_ended_function = True, False
        try:
            result = read()
        except NotSentYet:
            pass
        finally:
            batch.is_collecting = False
            added, has_ended = batch.since(known), batch.has_ended_function
            is_only_answered = has_ended and result_of is not None and len(added) == 1
            rehearsal.end(counts=is_only_answered or not has_ended)
        if not has_ended:
            self._is_free = False  # it was called to its end, and nobody knows what it did
            return lambda: result
        if len(added) != 1:  # more than one query: it goes by itself, later
            batch.forget(added)
            return read  # type: ignore[no-any-return]  # it is a function
        if result_of is not None:
            return partial(_answer, result_of, added[0])
        return partial(_call_with_answer, read, batch, added[0])

    def may_go_again(self, error: Error, attempt: int) -> bool:
        pools = [wrapper.resources.pool for wrapper in self._wrappers]
        return (
            self._is_free
            and perf_counter() - self._began <= LONGEST_READ_SECONDS
            and not retries_are_off.get()
            and classify(error).retry == READ
            and all(pool is not None and attempt < pool.configuration.retry_attempts for pool in pools)
            and all(is_plain_read(statement.query) for _, statement in self._statements.values())
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


def _each(things: Sequence[Any], make: Callable[[Any], Any]) -> list[Any]:
    """Return what `make` makes of each; an error tells of which read it is."""
    made: list[Any] = []
    try:
        for thing in things:
            made.append(make(thing))  # noqa: PERF401  # the error is told how many there are
    except Exception as error:
        _tell(error, len(made) + 1)
        raise
    return made


def _tell(error: BaseException, number: int) -> None:
    error.add_note(f"It was raised by read number {number} of gather().")


class _Compiled:
    """A queryset that waits."""

    def __init__(self, read: QuerySet[Any, Any]) -> None:
        # A copy, since its query is changed; one that was evaluated is not asked again and stays as it is.
        self._is_evaluated = read._result_cache is not None
        self._queryset: Any = read if self._is_evaluated else read.all()
        self.alias = self._queryset.db
        self._compiler = self._queryset.query.get_compiler(using=self.alias)
        self._rows: list[Any] = []
        if not self._is_evaluated:
            with suppress(EmptyResultSet):  # nothing can match; whoever executes it deals with that
                sql = self._compiler.as_sql()
                self._compiler.as_sql = lambda *args, **kwargs: sql

    def execute(self) -> Callable[[], _Compiled]:
        """Let it wait; returns what takes its rows."""
        if self._is_evaluated:
            return lambda: self
        return partial(self._fetch, self._compiler.execute_sql(CURSOR))

    def _fetch(self, cursor: Any) -> _Compiled:
        if cursor is not None:
            compiler = self._compiler
            columns = compiler.col_count if compiler.has_extra_select else None
            sentinel = compiler.connection.features.empty_fetchmany_value
            self._rows = list(cursor_iter(cursor, sentinel, columns, GET_ITERATOR_CHUNK_SIZE))
        return self

    def objects(self) -> list[Any]:
        """Return the objects, which the queryset makes as ever, of rows that are there already."""
        if not self._is_evaluated:
            self._compiler.execute_sql = lambda *args, **kwargs: iter(self._rows)
            self._queryset.query.get_compiler = lambda *args, **kwargs: self._compiler
        return list(self._queryset)


def _answer(result_of: Callable[[PGresult], Any], statement: Waiting) -> Any:
    result = statement.cursor.pgresult
    assert result is not None
    return result_of(result)


def _call_with_answer(read: Callable[[], Any], batch: Batch, statement: Waiting) -> Any:
    result = statement.cursor.pgresult
    assert result is not None
    batch.answered = statement, result
    try:
        return read()
    finally:
        batch.answered = None
