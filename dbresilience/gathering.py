"""`gather()`: reads that do not depend on each other, in one round trip on one connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from inspect import iscoroutinefunction
from time import perf_counter
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.db.models import QuerySet
from django.db.models.manager import BaseManager
from psycopg.pq.abc import PGresult

from . import signals
from .batches import IS_SUPPORTED, Batch, Waiting
from .compiled_reads import CompiledRead, compile_function, compile_queryset, is_count
from .errors import classify
from .meanings import READ
from .rehearsing import NotSentYet, Rehearsal
from .repeating import LONGEST_READ_SECONDS
from .session_state import is_plain_read
from .signals import emit
from .units import retries_are_off

_RAISED_BY = "It was raised by read number"

Read = QuerySet[Any, Any] | Callable[[], Any]


def gather(*reads: Read, using: str = DEFAULT_DB_ALIAS) -> list[Any]:
    """Return a list of what each read returns: one round trip to each database, in a transaction or outside.

    Args:
        reads: querysets, each evaluated to a list; or functions without arguments that make one query, such as
            ``queryset.count``, ``queryset.exists`` or ``lambda: Thread.objects.get(pk=1)``. Functions are called twice,
            the first time no further than their query; Django's own `count` and `exists` at most once. One that handles
            the error of its query is called no more, and the others again. What else they ask for, and what
            `prefetch_related` does, costs round trips of its own; so does a function that begins a transaction.
        using: the alias that functions ask.

    Raises:
        TypeError: something else is to be read.
        Exception: what a read raises, with a note that tells which it was; what was lost with its session is read
            again first, outside a transaction.
    """
    for number, read in enumerate(reads, 1):
        _check_read(number, read)
    # Asked once, since a router may answer otherwise the next time.
    aliases = [read.db if isinstance(read, QuerySet) else using for read in reads]
    wrappers: dict[str, Any] = {alias: connections[alias] for alias in aliases}
    if not all(IS_SUPPORTED and hasattr(wrapper, "begin_batch") for wrapper in wrappers.values()):
        return [list(read) if isinstance(read, QuerySet) else read() for read in reads]
    attempt, wanted = 1, list[Any](reads)
    while True:
        trip = _Trip(wanted, aliases, wrappers)
        try:
            return trip.make()
        except Error as error:
            if trip.handled is not None:
                number, result = trip.handled
                wanted[number - 1] = CompiledRead(None, list, result)
            elif trip.may_go_again(error, attempt):
                trip.go_again(error, attempt)
                attempt += 1
            else:
                raise


class _Trip:
    """One attempt."""

    def __init__(self, reads: Sequence[CompiledRead | Read], aliases: list[str], wrappers: dict[str, Any]) -> None:
        self._reads = reads
        self._aliases = aliases
        self._wrappers = wrappers
        # Whether all may be asked again when they were lost.
        self._is_free = not any(
            wrapper.in_atomic_block or not wrapper.get_autocommit() or wrapper.is_bound for wrapper in wrappers.values()
        )
        self._began = perf_counter()
        self._statements: list[tuple[int, Waiting]] = []
        """What was let wait, and the number of its read."""
        self._has_run = len(wrappers) > 1
        """Whether something may be done already that would be done twice if all were asked again."""
        self.handled: tuple[int, Any] | None = None
        """The number and the result of a function that has handled the error of its query; the others go again."""

    def make(self) -> list[Any]:
        # Before a connection is held and after it is given back, as far as that goes.
        reads = _each(self._reads, self._compile)
        return _each(self._ask(reads), _result_of)

    def _compile(self, number: int, read: CompiledRead | Read) -> CompiledRead | Read:
        """Put a read into words; a function that has to be called is left as it is."""
        if isinstance(read, CompiledRead):
            return read  # it was handled before
        alias = self._aliases[number - 1]
        return compile_queryset(read, alias) if isinstance(read, QuerySet) else compile_function(read, alias) or read

    def _ask(self, reads: list[CompiledRead | Read]) -> list[Any]:
        """Ask all; returns compiled reads as they are, and the results of functions."""
        batches: dict[str, Batch] = {}
        try:
            for alias, wrapper in self._wrappers.items():
                batches[alias] = wrapper.begin_batch()
            asked = _each(reads, partial(self._prepare, batches))
            self._began = perf_counter()
            for alias, wrapper in self._wrappers.items():
                self._send(wrapper, batches[alias], asked)
            self._is_free = False  # from here on each goes again by itself, if at all
            if not all(isinstance(read, CompiledRead) for read in reads):
                asked = _each(asked, _finish)
                for wrapper in self._wrappers.values():
                    wrapper.send_waiting()  # what a function did and did not ask for
            return asked
        finally:
            for _, statement in self._statements:
                statement.cursor.leave_lease()  # its answer is here, or never comes
            for alias, batch in reversed(batches.items()):
                # What was not sent because another read failed, or was not evaluated.
                batch.forget(statement for _, statement in self._statements)
                self._wrappers[alias].end_batch(batch)

    def _send(self, wrapper: Any, batch: Batch, asked: list[Any]) -> None:
        batch.failed, failure = None, None
        try:
            wrapper.send_waiting()
        except Error as error:
            failure = error
        try:
            if failure is not None:
                self._tell_whose(failure, batch)
                self._let_handle(failure, wrapper, batch, asked)  # with no error in its context but its own
                raise failure
        finally:
            failure = None  # it refers to this frame

    def _let_handle(self, failure: Error, wrapper: Any, batch: Batch, asked: list[Any]) -> None:
        """Raise the error within the function whose query has failed, as where it asks by itself; it may handle it."""
        answer = getattr(failure.__cause__, "pgresult", None)
        if answer is None or batch.connection is None or batch.connection.closed or self._has_run:
            return
        for number, statement in self._statements:
            function = asked[number - 1]
            if statement is not batch.failed or getattr(function, "func", None) is not _call_with_answer:
                continue
            wrapper.needs_rollback = False  # as after an error of a query by itself; Django would refuse the call
            try:
                self.handled = number, function(answer)
            except BaseException as error:
                if getattr(error.__cause__, "pgresult", None) is not answer:
                    self._is_free = False  # nobody knows what it did before
                _tell(error, number)
                raise
            return

    def _tell_whose(self, error: Error, batch: Batch) -> None:
        """Name the read whose statement has failed; it has asked for that result, so nobody else has to be told."""
        for number, statement in self._statements:
            if statement is batch.failed:
                batch.failure = None
                _tell(error, number)

    def _prepare(self, batches: dict[str, Batch], number: int, read: Any) -> Any:
        """Let a read wait; returns what makes its result of the answer, if that is not the read itself."""
        batch = batches[self._aliases[number - 1]]
        before = batch.now()
        try:
            if not isinstance(read, CompiledRead):
                return self._prepare_function(read, self._wrappers[self._aliases[number - 1]], batch)
            read.execute()
        except Error as error:
            self._tell_whose(error, batch)  # so much waited that it was sent
            raise
        finally:
            self._statements += [(number, statement) for statement in batch.since(before)]
        return read

    def _prepare_function(self, read: Any, wrapper: Any, batch: Batch) -> Callable[[], Any]:
        """Call it as far as its query; returns what gives its result."""
        before, is_number, rehearsal, result = batch.now(), is_count(read), Rehearsal(wrapper), None
        batch.is_collecting, batch.has_ended_function = True, False
        try:
            result = read()
        except NotSentYet:
            pass
        except Exception:
            batch.is_collecting = False
            if batch.since(before):
                wrapper.send_waiting()  # what it had done before, which alone would have been executed
            raise
        finally:
            batch.is_collecting = False
            added, has_ended = batch.since(before), batch.has_ended_function
            is_answered = has_ended and len(added) == 1 and is_number
            rehearsal.end(counts=is_answered or not has_ended)
        if not has_ended:
            self._is_free, self._has_run = False, True  # it was called to its end, and nobody knows what it did
            return lambda: result
        if len(added) != 1:  # more than one query: it goes by itself, later
            batch.forget(added)
            return read  # type: ignore[no-any-return]  # it is a function
        return partial(_number_of, added[0]) if is_answered else partial(_call_with_answer, read, batch, added[0])

    def may_go_again(self, error: Error, attempt: int) -> bool:
        pools = [wrapper.resources.pool for wrapper in self._wrappers.values()]
        return (
            self._is_free
            and perf_counter() - self._began <= LONGEST_READ_SECONDS
            and not retries_are_off.get()
            and classify(error).retry == READ
            and all(pool is not None and attempt < pool.configuration.retry_attempts for pool in pools)
            and all(is_plain_read(statement.query) for _, statement in self._statements)
        )

    def go_again(self, error: Error, attempt: int) -> None:
        cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
        for wrapper in self._wrappers.values():
            wrapper.close()
            emit(
                signals.read_repeated,
                wrapper.alias,
                attempt=attempt,
                classification=classify(error),
                exception=cause,
            )


def _each(things: Iterable[Any], make: Callable[[int, Any], Any]) -> list[Any]:
    """Return what `make` makes of the number of each and of itself; an error tells of which read it is."""
    made: list[Any] = []
    try:
        for number, thing in enumerate(things, 1):
            made.append(make(number, thing))
    except Exception as error:
        _tell(error, len(made) + 1)
        raise
    return made


def _tell(error: BaseException, number: int) -> None:
    """Add a note of the read, unless it is known already that it was another."""
    if not any(note.startswith(_RAISED_BY) for note in getattr(error, "__notes__", [])):
        error.add_note(f"{_RAISED_BY} {number} of gather().")


def _finish(number: int, asked: Any) -> Any:
    """Call a function; a compiled read takes its answer, so that the first error is that of the first read."""
    if not isinstance(asked, CompiledRead):
        return asked()
    asked.take()
    return asked


def _result_of(number: int, asked: Any) -> Any:
    if not isinstance(asked, CompiledRead):
        return asked
    asked.take()
    return asked.result()


def _check_read(number: int, read: Any) -> None:
    """Refuse what is neither a queryset nor a function.

    Raises:
        TypeError: it is not.
    """
    wanted = "gather() reads querysets and functions that are not coroutines"
    if isinstance(read, BaseManager):
        raise TypeError(f"{wanted}; its read number {number} is the manager {read!r}. Give it `.all()`.")
    is_function = callable(read) and not isinstance(read, type) and not iscoroutinefunction(read)
    if not is_function and not isinstance(read, QuerySet):
        shown = read.__qualname__ if hasattr(read, "__qualname__") else repr(read)  # the repr of a method may ask
        raise TypeError(f"{wanted}; its read number {number} is {shown}.")


def _number_of(statement: Waiting) -> int:
    result = statement.cursor.pgresult
    assert result is not None
    return int(result.get_value(0, 0) or 0)


def _call_with_answer(read: Callable[[], Any], batch: Batch, statement: Waiting, answer: PGresult | None = None) -> Any:
    result = statement.cursor.pgresult if answer is None else answer
    assert result is not None
    batch.answered = statement, result
    try:
        return read()
    finally:
        batch.answered = None
