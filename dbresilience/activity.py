"""Who is at work on the server, of all that log in as this alias does? From pg_stat_activity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, sleep
from typing import TYPE_CHECKING

from .deadlines import deadline

if TYPE_CHECKING:
    from .connection import ResilientConnection

_QUERY = """
SELECT pid, coalesce(state, 'unknown'), application_name,
    coalesce(extract(epoch FROM clock_timestamp() - coalesce(xact_start, query_start, backend_start)), 0)::float8
FROM pg_stat_activity
WHERE datname = current_database() AND usename = session_user AND backend_type = 'client backend'
    AND pid <> pg_backend_pid()
ORDER BY 4 DESC
"""

ASK_AGAIN_SECONDS = 0.05
LONGEST_LOOK_SECONDS = 5.0
"""A frozen server would keep whoever asks for ever."""


@dataclass(frozen=True, slots=True)
class Session:
    """A session of the alias's user on its database, of this machine or any other."""

    pid: int
    state: str
    application: str
    seconds: float
    """Age of its transaction, else of its statement."""

    def __str__(self) -> str:
        name = f" ({self.application})" if self.application else ""
        return f"process {self.pid}{name}: {self.state} for {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Activity:
    """All such sessions of one moment, those at work longest first."""

    sessions: tuple[Session, ...]

    @property
    def at_work(self) -> tuple[Session, ...]:
        """Those that would notice a restart: active, or in a transaction."""
        return tuple(session for session in self.sessions if session.state != "idle")

    @property
    def idle(self) -> int:
        """How many are idle."""
        return len(self.sessions) - len(self.at_work)

    def __str__(self) -> str:
        return f"{len(self.at_work)} at work, {self.idle} idle"


def look(connection: ResilientConnection) -> Activity:
    """Ask the server for the sessions of this connection's user on its database, without this connection."""
    with deadline(LONGEST_LOOK_SECONDS):
        return Activity(tuple(Session(*row) for row in connection.execute(_QUERY).fetchall()))


def wait_until_quiet(
    connection: ResilientConnection, timeout_seconds: float, tell: Callable[[Activity], None]
) -> Activity:
    """Return when nobody is at work, or after `timeout_seconds`; `tell` hears each change."""
    deadline = monotonic() + timeout_seconds
    told, quiet = "", 0
    while True:
        activity = look(connection)
        if str(activity) != told:
            told = str(activity)
            tell(activity)
        # Twice, since what was acquired just before the pause may send its statement just after a look.
        quiet = 0 if activity.at_work else quiet + 1
        if quiet == 2 or (activity.at_work and monotonic() >= deadline):
            return activity
        sleep(ASK_AGAIN_SECONDS)
