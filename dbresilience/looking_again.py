"""A process that nobody asks finds out by itself, though rarely, that the database is back.

The breaker probes when somebody asks. Without this a worker that was idle when the outage ended would call the database
away for hours, and ring a pager. Processes that are to be silent while nobody asks (`scale_to_zero`) stay so.
"""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

from .errors import DatabaseUnavailable
from .process import of_process
from .reporting import each_second
from .resources import all_resources

EVERY_SECONDS = 5.0


class _Last:
    looked_at = 0.0


def install() -> None:
    """Begin with the reports of this process. Repeating it is harmless."""
    each_second("breaker", _look)


def _look() -> None:
    last: _Last = of_process("looking again", _Last)
    if monotonic() - last.looked_at < EVERY_SECONDS:
        return
    for resources in all_resources():
        pool = resources.pool
        if pool is not None and pool.admission.state == "open" and not resources.configuration.scale_to_zero:
            last.looked_at = monotonic()
            with suppress(DatabaseUnavailable):
                pool.admission.admit(0)  # which starts a probe if one is due
