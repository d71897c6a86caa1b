"""How long a request may wait for the database in total, enforced on this machine's own clock.

A frozen server and a network that swallows packets cannot be timed out by the server. So each request has an
*allowance*: the seconds it may still wait for a connection, for statements and between attempts.
It is spent by waiting for the database only: a chat that waits a minute for its model still has
all of it. Once a streamed response has begun, which may go on for hours, each statement has the whole
allowance anew.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from contextvars import ContextVar
from typing import Any

from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished
from django.http import HttpRequest

from .decorating import name_of, returns_before_it_runs
from .process import keep
from .wrapping import wrap_once

_CONFIGURED: Any = object()


class Allowance:
    """The seconds one request may wait for the database, and what it has spent of them."""

    __slots__ = ("ended", "limit_seconds", "outage", "renewed", "spent_seconds")

    def __init__(self, limit_seconds: float | None = _CONFIGURED) -> None:
        self.limit_seconds = limit_seconds
        self.spent_seconds = 0.0
        self.outage: Exception | None = None
        """The statement that was never answered, if one has used up the time."""
        self.renewed = False
        """Whether each statement begins with all of it."""
        self.ended = False
        """Whether its request is over: what a background task that it started still sees of it is nothing."""

    def remaining(self, configured_seconds: float | None) -> float | None:
        """Return the seconds left, negative when overdrawn; None if there is no limit.

        Args:
            configured_seconds: `deadline_seconds` of the alias, for requests that set no deadline of their own.
        """
        limit = self.limit(configured_seconds)
        if limit is None:
            return None
        return limit if self.renewed else limit - self.spent_seconds

    def limit(self, configured_seconds: float | None) -> float | None:
        """Return the seconds there were at first; None if there is no limit."""
        return self.limit_seconds if self.is_explicit else configured_seconds

    @property
    def is_explicit(self) -> bool:
        """Whether it is that of a `deadline()` block."""
        return self.limit_seconds is not _CONFIGURED

    def spend(self, seconds: float) -> None:
        """Count seconds that were waited."""
        self.spent_seconds += seconds


_current: ContextVar[Allowance | None] = ContextVar("dbresilience_allowance", default=None)


def current_allowance() -> Allowance | None:
    """Return the allowance of the request or block that runs here; None outside both."""
    allowance = _current.get()
    return None if allowance is None or allowance.ended else allowance


def deadline(seconds: float | None) -> AbstractContextManager[None]:
    """Limit how long a block or decorated function may wait for the database in total, or lift its request's limit.

    Args:
        seconds: for waiting for a connection, for every statement and between attempts, together.
            None means no limit.

    Raises:
        TypeError: `seconds` is not a number, or it decorates a coroutine or a generator, which would be over before it
            has run.
        ValueError: `seconds` is not more than 0.
        DatabaseUnavailable: raised within the block, when the time is over before a connection was had.
        django.db.OperationalError: raised within the block, when a statement was cancelled.
    """
    if seconds is not None:
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
            raise TypeError(f"deadline() takes seconds, such as deadline(2.5), or None; it was given {seconds!r}.")
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"deadline() takes seconds, more than 0, or None for no limit; it was given {seconds!r}.")
    return _Deadline(seconds)


class _Deadline(ContextDecorator, AbstractContextManager[None]):
    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._entered: list[tuple[Allowance, Allowance | None]] = []

    def __call__(self, function: Any) -> Any:
        kind = returns_before_it_runs(function)
        if kind is not None:
            raise TypeError(f"deadline() cannot decorate the {kind} {name_of(function)}(). Use it within, as a block.")
        return super().__call__(function)

    def _recreate_cm(self) -> _Deadline:
        return _Deadline(self._seconds)  # a decorated function may run in many threads at once

    def __enter__(self) -> None:
        allowance = Allowance(self._seconds)
        self._entered.append((allowance, _current.get()))
        _current.set(allowance)

    def __exit__(self, *exception: object) -> None:
        allowance, before = self._entered.pop()
        allowance.ended = True
        _current.set(before)


def seconds_left(most_seconds: float, configured_seconds: float | None) -> float:
    """Return how much of `most_seconds` the request may still wait; 0 or less is nothing."""
    allowance = current_allowance()
    left = None if allowance is None else allowance.remaining(configured_seconds)
    return most_seconds if left is None else min(most_seconds, left)


def spend(seconds: float) -> None:
    """Count seconds that were waited for the database, where there is an allowance."""
    allowance = current_allowance()
    if allowance is not None:
        allowance.spend(seconds)


def install() -> None:
    """Give each request that Django answers its allowance. Repeating it is harmless."""
    wrap_once(BaseHandler, "get_response", _within_allowance)
    wrap_once(BaseHandler, "get_response_async", _within_allowance_async)
    request_finished.connect(_end_allowance, dispatch_uid="dbresilience.deadlines")


def _within_allowance(get_response: Callable[..., Any]) -> Callable[..., Any]:
    def answer(self: BaseHandler, request: HttpRequest) -> Any:
        with _allowance_of_request() as keep_for:
            response = get_response(self, request)
            keep_for(response)
        return response

    return answer


def _within_allowance_async(get_response: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def answer(self: BaseHandler, request: HttpRequest) -> Any:
        with _allowance_of_request() as keep_for:
            response = await get_response(self, request)
            keep_for(response)
        return response

    return answer


@contextmanager
def _allowance_of_request() -> Iterator[Callable[[Any], None]]:
    before = _current.get()
    allowance = Allowance()
    _current.set(allowance)

    def keep_for(response: Any) -> None:
        allowance.renewed = response.streaming

    try:
        yield keep_for
    finally:
        if not allowance.renewed:
            allowance.ended = True
            _current.set(before)


def _end_allowance(**kwargs: Any) -> None:
    # A streamed response has ended; the thread goes on to other work.
    allowance = _current.get()
    if allowance is not None and allowance.renewed:
        allowance.ended = True


keep(globals(), "Allowance", "_CONFIGURED", "_current")
