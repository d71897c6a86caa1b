"""Switching off all that is done again by itself, for a test that wants to see the first error."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from functools import wraps
from typing import ParamSpec, TypeVar

from .decorating import name_of, returns_before_it_runs
from .units import retries_are_off

P = ParamSpec("P")
R = TypeVar("R")


class _NoRetries:
    """What `no_retries` returns."""

    def __init__(self) -> None:
        self._tokens: list[Token[bool]] = []

    def __enter__(self) -> None:
        self._tokens.append(retries_are_off.set(True))

    def __exit__(self, *exception: object) -> None:
        retries_are_off.reset(self._tokens.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if returns_before_it_runs(function) is not None:
            raise TypeError(
                f"no_retries() above {name_of(function)}() would be over before it runs. "
                "Write: with no_retries(): … within it."
            )

        @wraps(function)
        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            with no_retries():
                return function(*args, **kwargs)

        return run


def no_retries() -> _NoRetries:
    """Repeat nothing within the block or the decorated function, for tests that want to see the first error.

    It holds for this thread, and for what is awaited or given to `sync_to_async` within it; threads that are started by
    hand, such as those of a live server, do not know of it. For all tests at once, in every thread, set
    ``OPTIONS["resilience"]["retry_attempts"]`` to 1.

    Raises:
        TypeError: above a coroutine or a generator, which would be over before it has run.
    """
    return _NoRetries()
