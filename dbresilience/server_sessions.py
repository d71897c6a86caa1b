"""What the server says of its sessions: whose they are, by application name, and how many more it takes.

Asked outside the pool, so that a full pool can be looked into, one question at a time however many look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .asking import SharedAnswer
from .capacity import NO_SLOTS, Slots
from .health import ask_briefly
from .slots import count_slots

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .resources import DatabaseResources

MEMORY_SECONDS = 1.0
LONGEST_QUESTION_SECONDS = 2.0
LONGEST_AGE_SECONDS = MEMORY_SECONDS + LONGEST_QUESTION_SECONDS
"""How old an answer may be that is shown while the next one is under way, on a server that takes its time."""

MOST_GROUPS = 50

# Of sessions that a role may not see, the kind is NULL as well as the state. The server's own processes have no user
# or no database.
_SESSIONS = f"""
SELECT coalesce(application_name, ''), coalesce(datname, '') = current_database(), coalesce(state, 'unknown'),
    count(*), coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND usename IS NOT NULL AND datname IS NOT NULL
    AND coalesce(backend_type, 'client backend') = 'client backend'
GROUP BY 1, 2, 3
ORDER BY 4 DESC, 1, 3
LIMIT {MOST_GROUPS}
"""


@dataclass(frozen=True, slots=True)
class SessionGroup:
    """Sessions of the same application in the same state.

    Attributes:
        application: their `application_name`; empty if they gave none.
        here: whether they are in the database of this alias.
        state: as in pg_stat_activity; ``unknown`` where this user may not see it.
        sessions: how many.
        longest_transaction_seconds: age of the oldest transaction among them, 0 without one.
    """

    application: str
    here: bool
    state: str
    sessions: int
    longest_transaction_seconds: float


@dataclass(frozen=True, slots=True)
class ServerSessions:
    """The server at one moment.

    Attributes:
        state: ``ok``, ``timeout``, or the class of the error (`errors.classify`); without ok the rest is empty.
        groups: its sessions, but for the one that asked; the `MOST_GROUPS` largest groups.
        slots: how many it lets in.
        sessions: all of them, also those that are in none of the groups.
    """

    state: str
    groups: tuple[SessionGroup, ...] = ()
    slots: Slots = NO_SLOTS
    sessions: int = 0

    @property
    def is_away(self) -> bool:
        """Whether it did not answer."""
        return self.state != "ok"


_answers: WeakKeyDictionary[DatabaseResources, SharedAnswer[ServerSessions]] = WeakKeyDictionary()


def ask_server(resources: DatabaseResources, *, timeout_seconds: float = 0.5) -> ServerSessions:
    """Return the server's sessions, at most a second old, within `timeout_seconds`.

    If it takes longer, those of before, at most `LONGEST_AGE_SECONDS` old: a view that is drawn anew each second does
    not lose sight of a distant server.
    """
    answer = _answers.get(resources)
    if answer is None:
        arguments = resources.connect_arguments
        new = SharedAnswer(
            lambda: _ask(arguments),
            memory_seconds=MEMORY_SECONDS,
            name="dbresilience-sessions",
            longest_age_seconds=LONGEST_AGE_SECONDS,
        )
        answer = _answers.setdefault(resources, new)
    return answer.get(timeout_seconds=timeout_seconds) or ServerSessions("timeout")


def _ask(connect_arguments: Callable[[], Mapping[str, Any]]) -> ServerSessions:
    state, found = ask_briefly(connect_arguments, _look, LONGEST_QUESTION_SECONDS)
    return found or ServerSessions(state)


def _look(connection: ResilientConnection) -> ServerSessions:
    groups = tuple(SessionGroup(*row) for row in connection.execute(_SESSIONS).fetchall())
    slots, ours = count_slots(connection)
    return ServerSessions("ok", groups, slots, slots.others + ours)
