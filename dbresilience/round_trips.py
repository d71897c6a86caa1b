"""How often the server was asked and answered: seen in what psycopg waits for, which is also where to see how long.

A statement may take more than one answer (a BEGIN of its own before, a named cursor that is described after), or less
than one (it travels with others). psycopg makes a new generator for each that it waits for, so the generators are
counted and not the statements.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from time import perf_counter
from typing import Any

from .exchange import exchange

_ASKING = frozenset({"execute", "_execute", exchange.__name__})
"""Generators that send one message, or one batch of them, and wait for its answer: psycopg's, with and without its
speedups, and ours."""

# Plain numbers of psycopg.waiting.Ready: enumerations are slow.
_MAY_READ, _MAY_WRITE = 1, 2

Wait = Generator[Any, Any, Any]


class RoundTrips:
    """What is counted of one connection's waits.

    Args:
        note_wait: called at the end of each wait with its beginning and its end, by `time.perf_counter`.

    Attributes:
        total: how often the server was asked after it had spoken.
    """

    def __init__(self, note_wait: Callable[[float, float], None]) -> None:
        self.total = 0
        self._note_wait = note_wait
        self._has_answered = True

    def counting(self, waiting: Wait) -> Wait:
        """Return what waits as `waiting` does."""
        began, asked, has_waited = perf_counter(), None, False
        try:
            wanted = next(waiting)
            has_waited = True
            while True:
                asking = _asking(waiting)
                if asking is not None and asking is not asked:
                    asked = asking
                    self._ask()
                ready = yield wanted
                if ready and ready & _MAY_READ:
                    self._has_answered = True
                elif ready and ready & _MAY_WRITE and asking is None:
                    self._ask()  # a COPY, or a pipeline of psycopg's own
                wanted = waiting.send(ready)
        except StopIteration as done:
            return done.value
        finally:
            if has_waited:
                self._note_wait(began, perf_counter())

    def _ask(self) -> None:
        if self._has_answered:
            self._has_answered = False
            self.total += 1


def _asking(waiting: Any) -> object | None:
    """Return the generator within `waiting` that has asked the server something, if it is at one."""
    while waiting is not None:
        if getattr(waiting, "__name__", None) in _ASKING:
            return waiting  # type: ignore[no-any-return]
        waiting = getattr(waiting, "gi_yieldfrom", None)
    return None
