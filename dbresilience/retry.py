"""Run a whole unit of work again when its transaction was undone through no fault of its own.

What may go again: a serialization failure, a deadlock, a session lost before COMMIT was sent, and a
COMMIT that was looked up and has not happened (`errors.classify`). What may not: a unit whose outcome is
unknown, or of which something is stored already; a refusal by the pool, which has waited itself for as
long as it makes sense; and a part of a transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from time import sleep
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, overload

import psycopg
from django.db import DEFAULT_DB_ALIAS, Error, InterfaceError, OperationalError, connections

from . import signals
from .deadlines import seconds_left, spend
from .decorating import name_of, returns_before_it_runs
from .errors import DatabaseUnavailable, RetryInsideTransaction, classify
from .meanings import NEVER, OUTCOME_UNKNOWN, UNAVAILABLE, Classification
from .repeating import delay_seconds
from .resources import DatabaseResources
from .signals import emit
from .slow_queries import call_site
from .units import Unit, current_unit, retries_are_off

P = ParamSpec("P")
R = TypeVar("R")

_GIVEN_UP = "_dbresilience_given_up"
_TELLS_NOTHING = (OperationalError, psycopg.OperationalError, InterfaceError, psycopg.InterfaceError)


@overload
def retry(
    function: Callable[P, R], /, *, attempts: int | None = ..., using: str = ..., idempotent: bool = ...
) -> Callable[P, R]: ...
@overload
def retry(
    *, attempts: int | None = ..., using: str = ..., idempotent: bool = ...
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
def retry(
    function: Callable[..., Any] | None = None,
    /,
    *,
    attempts: int | None = None,
    using: str = DEFAULT_DB_ALIAS,
    idempotent: bool = False,
) -> Any:
    """Let a function run again when its transaction was undone: ``@retry``, ``@retry(attempts=5)``, ``retry(f)(x)``.

    The function holds the whole transaction and nothing else that lasts: it must do no harm to run it twice. It is not
    run again once anything of it is stored, or written into another alias's transaction around it, when the outcome of
    its COMMIT is unknown, within `no_retries()`, and on another database backend. Between attempts no connection is
    held, except within `pinned()`, with something left on its session, with a cursor of before still open, and by
    aliases without a pool. Functions given to `on_commit` run for the attempt that was committed only.

    Args:
        attempts: how often it runs at most; absent, `retry_attempts` of the alias.
        using: the alias whose transaction it is.
        idempotent: whether it may run again also when nobody knows if its COMMIT happened, because a second run finds
            what the first has stored: its keys are made by the client, say, and a unique violation tells.

    Raises:
        ValueError: `attempts` is not a whole number of 1 or more.
        TypeError: a coroutine or a generator, which would be over before it has run.
        RetryInsideTransaction: it was called within a transaction, which is lost as a whole. Within `TestCase` it
            simply runs once.
    """
    _check_attempts(attempts)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        name, kind = name_of(function), returns_before_it_runs(function)
        if kind == "coroutine":
            raise TypeError(
                f"retry() cannot run the coroutine {name}() again. Transactions are synchronous in Django: put them "
                "into a function, decorate that, and await sync_to_async(function)()."
            )
        if kind is not None:
            raise TypeError(f"retry() cannot run the generator {name}() again: it would have returned before it ran.")

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            for attempt in _Attempts(attempts, using, name, idempotent=idempotent):
                with attempt:
                    return function(*args, **kwargs)
            raise AssertionError("the last attempt either returns or raises")

        return run

    return decorate if function is None else decorate(function)


def retrying(
    *, attempts: int | None = None, using: str = DEFAULT_DB_ALIAS, idempotent: bool = False
) -> Iterator[Attempt]:
    """Let a block run again, as `retry` does: ``for attempt in retrying(): with attempt, transaction.atomic(): …``.

    The loop ends after the attempt that succeeds; one that fails for good raises.

    Args:
        attempts: how often it runs at most; absent, `retry_attempts` of the alias.
        using: the alias whose transaction it is.
        idempotent: as of `retry`.

    Raises:
        ValueError: `attempts` is not a whole number of 1 or more.
        RetryInsideTransaction: when the block is entered within a transaction.
    """
    _check_attempts(attempts)
    return _Attempts(attempts, using, call_site(), idempotent=idempotent)


class Attempt:
    """One run of a unit, as a context manager around its transaction. `number` begins with 1."""

    def __init__(self, attempts: _Attempts, number: int) -> None:
        self.number = number
        self._attempts = attempts

    def __enter__(self) -> Attempt:
        self._attempts.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self._attempts.leave(error)


class _Attempts:
    """The attempts at one unit."""

    def __init__(self, attempts: int | None, using: str, name: str, *, idempotent: bool) -> None:
        self._most = attempts
        self._idempotent = idempotent
        self._using = using
        self._name = name
        self._number = 0
        self._entered = self._again = False
        self._delay_seconds = 0.0
        self._unit = self._parent = current_unit.get()
        self._around: dict[str, int | None] = {}
        self._unknown: BaseException | None = None

    def __iter__(self) -> _Attempts:
        return self

    def __next__(self) -> Attempt:
        if self._number and not self._entered:
            raise RuntimeError("retrying() gave an attempt that was not entered. Write: with attempt, atomic(): …")
        if self._number and not self._again:
            raise StopIteration
        if self._delay_seconds:
            sleep(self._delay_seconds)
            spend(self._delay_seconds)
        self._number += 1
        self._entered = self._again = False
        return Attempt(self, self._number)

    def enter(self) -> None:
        self._entered = True
        _refuse_within_transaction(self._using, self._name)
        self._around = _writes_around(self._using)
        self._parent = current_unit.get()
        self._unit = Unit(self._parent)
        current_unit.set(self._unit)

    def leave(self, error: BaseException | None) -> bool:
        """End an attempt; whether its error is dealt with, by another attempt."""
        current_unit.set(self._parent)
        if error is None and self._number > 1:
            emit(signals.unit_recovered, self._using, unit=self._name, attempt=self._number)
        if not isinstance(error, (Error, psycopg.Error)):
            return False
        meaning = classify(error)
        self._again = self._may_go_again(error, meaning)
        if self._again and meaning == OUTCOME_UNKNOWN:
            self._unknown = error
        elif not self._again and self._unknown is not None and isinstance(error, _TELLS_NOTHING):
            # That another attempt failed does not make known what became of an earlier one.
            raise self._unknown
        return self._again

    def _may_go_again(self, error: BaseException, meaning: Classification) -> bool:
        if not _undone(error, meaning, even_if_unknown=self._idempotent) or retries_are_off.get():
            return False
        wrapper: Any = connections[self._using]
        resources = getattr(wrapper, "resources", None)
        if not isinstance(resources, DatabaseResources) or _is_within_test_case(wrapper):
            return False
        reason = self._reason_against(resources)
        details = {"unit": self._name, "attempt": self._number, "classification": meaning, "exception": error}
        if reason is not None:
            if self._number > 1 or self._most_attempts(resources) > 1:
                setattr(error, _GIVEN_UP, True)
                error.add_note(f"It was not run again by retry: {reason}.")
                emit(signals.unit_given_up, self._using, reason=reason, **details)
            return False
        if meaning.evict and wrapper.connection is not None and not wrapper.in_atomic_block:
            wrapper.close()
        else:
            wrapper.release_early()
        emit(signals.unit_repeated, self._using, delay_seconds=self._delay_seconds, **details)
        return True

    def _most_attempts(self, resources: DatabaseResources) -> int:
        return self._most if self._most is not None else resources.configuration.retry_attempts

    def _written_around(self) -> str | None:
        """Return an alias whose transaction was begun before the unit and holds what the unit wrote, if there is one.

        Of a transaction that is not ours, or not there any more, nothing can be told.
        """
        now = _writes_around(self._using)
        for alias, writes in self._around.items():
            if writes is None or now.get(alias) != writes:
                return alias
        return None

    def _reason_against(self, resources: DatabaseResources) -> str | None:
        most = self._most_attempts(resources)
        if self._unit is not None and self._unit.has_stored:
            return "a part of it is stored already, which would be stored twice"
        if (alias := self._written_around()) is not None:
            return f"it may have written within a transaction of {alias!r} around it, which goes on"
        if self._number >= most:
            return f"it has run {self._number} times" if most > 1 else "it may run once only"
        self._delay_seconds = delay_seconds(self._number)
        if seconds_left(self._delay_seconds, resources.configuration.deadline_seconds) < self._delay_seconds:
            return "the request's deadline is too near"
        return None


def _undone(error: BaseException, meaning: Classification, *, even_if_unknown: bool) -> bool:
    """Whether the transaction is certain to be undone, or may be done twice, and another attempt has a chance."""
    is_unknown = meaning == OUTCOME_UNKNOWN
    if (
        (meaning.retry == NEVER and not (is_unknown and even_if_unknown))
        or meaning is UNAVAILABLE
        or isinstance(error, DatabaseUnavailable)
    ):
        return False
    if getattr(error, _GIVEN_UP, False):
        return False
    # What happened while an unknown outcome was dealt with says nothing about that.
    context: BaseException | None = error
    seen: set[int] = set()
    while context is not None and id(context) not in seen:
        seen.add(id(context))
        if classify(context) == OUTCOME_UNKNOWN and not even_if_unknown:
            return False
        context = context.__cause__ or context.__context__
    return True


def _refuse_within_transaction(using: str, name: str) -> None:
    wrapper = connections[using]
    if wrapper.in_atomic_block or not wrapper.get_autocommit():
        if _is_within_test_case(wrapper):
            return
        raise RetryInsideTransaction(
            f"{name} is marked by retry, but was begun within a transaction of {using!r}. When that fails it is undone "
            "as a whole, so running a part of it again would be wrong. Put retry around the outermost atomic(); in a "
            "view under ATOMIC_REQUESTS, use transaction.non_atomic_requests."
        )


def _writes_around(using: str) -> dict[str, int | None]:
    """Return how many writes the open transactions of all other aliases hold; None where that is not known."""
    return {
        wrapper.alias: 0 if wrapper.connection is None else getattr(wrapper.connection, "writes", None)
        for wrapper in connections.all(initialized_only=True)
        if wrapper.alias != using
        and (wrapper.connection is not None or getattr(wrapper, "begins_later", False))
        and (wrapper.in_atomic_block or not wrapper.autocommit)
        and not _is_within_test_case(wrapper)
    }


def _is_within_test_case(wrapper: Any) -> bool:
    blocks = wrapper.atomic_blocks
    return bool(blocks) and all(block._from_testcase for block in blocks)


def _check_attempts(attempts: int | None) -> None:
    if attempts is not None and (not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1):
        raise ValueError(f"attempts is {attempts!r}. Give a whole number of 1 or more, or nothing for retry_attempts.")
