"""The sum that everybody forgets: processes × pool must fit into the server's slots, in a rolling restart too."""

from __future__ import annotations

import os
from dataclasses import dataclass

from .plurals import number_of

SPARE = 10
"""Slots for migrations, a shell, backups and whoever looks after the server."""
PROBES = 1
"""A health probe connects outside the pool, one at a time for each web process."""


@dataclass(frozen=True, slots=True)
class Processes:
    """Who opens pools to one server.

    Attributes:
        web: web processes, on all machines together.
        workers: other processes: task workers, schedulers.
        source: where the number of web processes is from.
    """

    web: int
    workers: int
    source: str

    @property
    def all(self) -> int:
        """Both kinds."""
        return self.web + self.workers

    def __str__(self) -> str:
        return f"{number_of(self.web, 'web process', 'web processes')} + {number_of(self.workers, 'other')}"


def declared_processes(web: int | None = None, workers: int = 1) -> Processes:
    """Return how many processes there are: those given, else WEB_CONCURRENCY, else one."""
    if web is not None:
        return Processes(web, workers, "--processes")
    text = os.environ.get("WEB_CONCURRENCY", "")
    if text.isascii() and text.isdecimal() and int(text) > 0:
        return Processes(int(text), workers, "WEB_CONCURRENCY, of this machine; --processes N for all machines")
    return Processes(1, workers, "WEB_CONCURRENCY is not set; --processes N for all machines")


@dataclass(frozen=True, slots=True)
class Slots:
    """Connections that the server lets in.

    Attributes:
        max_connections: of the server.
        reserved: kept for superusers and for those with `pg_use_reserved_connections`.
        limit: of the role or of the database, whichever is less; None without one.
        others: taken now by other users or other databases.
    """

    max_connections: int
    reserved: int
    limit: int | None
    others: int

    @property
    def left(self) -> int:
        """What there is for this site."""
        left = self.max_connections - self.reserved - self.others
        return left if self.limit is None else min(left, self.limit)

    def __str__(self) -> str:
        text = (
            f"{self.max_connections} slots − {self.reserved} reserved − {self.others} in use by others = "
            f"{self.max_connections - self.reserved - self.others}"
        )
        if self.limit is None:
            return text
        return f"{text}, and the role or the database is limited to {self.limit}: {self.left}"


NO_SLOTS = Slots(0, 0, None, 0)


@dataclass(frozen=True, slots=True)
class Demand:
    """What the processes may open.

    Attributes:
        processes: how many there are.
        size: `max_size` of a process, all aliases on that server together.
    """

    processes: Processes
    size: int

    @property
    def steady(self) -> int:
        """While nothing is being rolled out."""
        return self.processes.all * self.size + self.processes.web * PROBES

    @property
    def rolling(self) -> int:
        """In a rolling restart, old and new processes at once, with some to spare."""
        return 2 * self.steady + SPARE

    def largest_size(self, slots: int, aliases: int = 1) -> int:
        """Return the largest `max_size` of each alias with which a rolling restart fits; 0 or less if none does."""
        left = slots - SPARE - 2 * self.processes.web * PROBES
        return left // (2 * self.processes.all * aliases) if self.processes.all else left

    def __str__(self) -> str:
        return (
            f"{self.processes} with {self.size} connections each, and {self.processes.web * PROBES} for probes, "
            f"are {self.steady}, {self.rolling} in a rolling restart with {SPARE} to spare"
        )
