"""The unit that `retry` runs here, and whether something of it is stored already.

A unit that has stored something is not run again, whatever happens to it afterwards: it would store
that twice.
"""

from __future__ import annotations

from contextvars import ContextVar


class Unit:
    """One attempt at a unit; `parent` is the attempt within which it was begun, if any."""

    __slots__ = ("has_committed", "parent")

    def __init__(self, parent: Unit | None) -> None:
        self.parent = parent
        self.has_committed = False


current_unit: ContextVar[Unit | None] = ContextVar("dbresilience_unit", default=None)

retries_are_off: ContextVar[bool] = ContextVar("dbresilience_retries_are_off", default=False)


def note_commit() -> None:
    """Note that something was stored for good; called only where something was written."""
    unit = current_unit.get()
    while unit is not None:
        unit.has_committed = True
        unit = unit.parent


def seconds_left(seconds: float) -> float:
    """Return how long a wait of at most `seconds` may take within the request's deadline; 0 or less: none."""
    # SEAM: deadlines.py, `current_allowance()`.
    return seconds


def spend(seconds: float) -> None:
    """Count a pause as spent on the database."""
    # SEAM: deadlines.py, `current_allowance().spend`.
