"""The unit that `retry` runs here, and whether something of it is stored already.

A unit that has stored something is not run again, whatever happens to it afterwards: it would store
that twice.
"""

from __future__ import annotations

from contextvars import ContextVar

from .process import keep


class Unit:
    """One attempt at a unit; `parent` is the attempt within which it was begun, if any."""

    __slots__ = ("has_stored", "parent")

    def __init__(self, parent: Unit | None) -> None:
        self.parent = parent
        self.has_stored = False


current_unit: ContextVar[Unit | None] = ContextVar("dbresilience_unit", default=None)

retries_are_off: ContextVar[bool] = ContextVar("dbresilience_retries_are_off", default=False)


def note_stored() -> None:
    """Note that something was stored for good, in whatever database."""
    unit = current_unit.get()
    while unit is not None:
        unit.has_stored = True
        unit = unit.parent


keep(globals(), "Unit", "current_unit", "retries_are_off")
