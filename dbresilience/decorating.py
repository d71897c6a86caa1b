"""What no decorator can serve that acts while a function runs: a function that returns before it has run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any


def returns_before_it_runs(function: Callable[..., Any]) -> str | None:
    """Return what `function` is, a ``coroutine`` or a ``generator``, if to call it is not yet to run it; else None."""
    if inspect.iscoroutinefunction(function):
        return "coroutine"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "generator"
    return None


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for an error."""
    return getattr(function, "__qualname__", repr(function))
