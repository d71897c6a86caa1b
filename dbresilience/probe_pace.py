"""When to probe again: at once where it costs nobody anything, else after a share of the time that it has lasted.

So a start that takes half a second is noticed within a tenth of one, and a long one is asked once a second.
"""

from __future__ import annotations

import random

import psycopg

from .dialling import is_unexplained, nobody_listened
from .meanings import NO_WRITER, POOLER_FULL, SERVER_FULL, SHUTTING_DOWN, STARTING, Classification

LISTEN_SECONDS = 0.1
"""Between two probes while nothing listens at the address, which costs nobody anything."""
START_SECONDS = 0.2
"""Longest time between two probes of a server that is starting or being promoted."""
LONGEST_DELAY_SECONDS = 1.0
FULL = frozenset({SERVER_FULL.name, POOLER_FULL.name})


class ProbePace:
    """The pace of one outage."""

    def __init__(self) -> None:
        self._refused_since: float | None = None

    def delay(self, cause: Exception, meaning: Classification, now: float) -> float:
        """Return the seconds until the next probe.

        Args:
            cause: what the last one met.
            meaning: its class.
            now: by `time.monotonic`.
        """
        if isinstance(cause, psycopg.errors.ConnectionTimeout):
            return LISTEN_SECONDS / 2  # it took long enough by itself
        if nobody_listened(cause) or (isinstance(cause, psycopg.OperationalError) and is_unexplained(cause)):
            # Also a proxy without a server behind it, which takes a connection and ends it.
            self._refused_since = None
            return LISTEN_SECONDS * random.uniform(0.8, 1.2)
        if meaning.name in FULL:
            return LONGEST_DELAY_SECONDS * random.uniform(0.5, 1.0)
        if self._refused_since is None:
            self._refused_since = now
        lasted = now - self._refused_since
        passing = meaning.name in (STARTING.name, NO_WRITER.name, SHUTTING_DOWN.name)
        longest = START_SECONDS if passing else LONGEST_DELAY_SECONDS
        return min(max(0.15 * lasted, LISTEN_SECONDS / 2), longest) * random.uniform(0.75, 1.0)
