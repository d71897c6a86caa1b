"""How long a client waits for the database while a reply is made: no longer than its request's deadline.

A reply is made by a thread of its own, which has no deadline by itself, and a frozen server would hold it for ever.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from chat import limits
from dbresilience import deadline, get_database_resources


def longest_seconds() -> float:
    """`deadline_seconds` of the database, but no longer than a last save is tried for."""
    try:
        configured = get_database_resources().configuration.deadline_seconds
    except TypeError:  # Django's own backend knows none
        configured = None
    return min(limits.FINAL_SAVE_SECONDS, math.inf if configured is None else configured)


class Patience:
    """What is left to one client; `spent_seconds` have gone before. It is whole again whenever the database answers."""

    def __init__(self, *, spent_seconds: float = 0.0) -> None:
        self._whole_seconds = longest_seconds()
        self._left_seconds = self._whole_seconds - spent_seconds

    @property
    def left_seconds(self) -> float:
        return max(self._left_seconds, min(limits.LEAST_SAVE_SECONDS, self._whole_seconds))

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Ask the database within the block, for as long as there is patience."""
        began = time.monotonic()
        try:
            with deadline(self.left_seconds):
                yield
        except BaseException:
            self._left_seconds -= time.monotonic() - began
            raise
        self._left_seconds = self._whole_seconds
