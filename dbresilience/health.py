"""Is the database well? Asked on a connection outside the pool, with one check in flight.

So a full pool is not mistaken for an outage, and any number of probes costs five connections a
second at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar

from .asking import SharedAnswer
from .connection import ResilientConnection
from .deadlines import deadline
from .errors import classify
from .meanings import while_connecting

Answer = TypeVar("Answer")

LONGEST_CHECK_SECONDS = 5.0
MEMORY_SECONDS = 0.2
"""How long one answer serves all who ask. Short, so that a stop is not called health for long."""


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    """One answer of the server.

    Attributes:
        healthy: whether it answered.
        latency_ms: how long one `SELECT 1` took, in milliseconds; None when unhealthy.
        state: ``ok``, ``timeout``, or the name of the error's class (`errors.classify`).
    """

    healthy: bool
    latency_ms: float | None
    state: str


def connect_briefly(arguments: Mapping[str, Any]) -> ResilientConnection:
    """Connect outside the pool, for one question, to a server that may be away."""
    # 2 seconds is the least libpq accepts. A black hole ends after 5 (in milliseconds),
    # so that the question in flight does not stay for ever.
    # And what is asked for ourselves is no slow query of the site.
    brief = {"connect_timeout": 2, "tcp_user_timeout": 5000, "autocommit": True, "slow_query_log": None}
    return ResilientConnection.connect(**{**arguments, **brief})


def ask_briefly(
    arguments: Callable[[], Mapping[str, Any]],
    question: Callable[[ResilientConnection], Answer],
    longest_seconds: float,
) -> tuple[str, Answer | None]:
    """Ask a server that may be away one question; never raises.

    Args:
        arguments: gives those of the connection.
        question: is called with it.
        longest_seconds: how long the question may take, also on a server that is frozen.

    Returns:
        ``ok`` and the answer; or the name of the error's class (`errors.classify`) and None.
    """
    connected = False
    try:
        with connect_briefly(arguments()) as connection, deadline(longest_seconds):
            connected = True
            return "ok", question(connection)
    except Exception as error:  # whatever it is, the answer is that there is none
        meaning = classify(error)
        return (meaning if connected else while_connecting(meaning)).name, None


def _measure_latency(connection: ResilientConnection) -> float:
    started = perf_counter()
    connection.execute("SELECT 1")
    return round((perf_counter() - started) * 1000, 3)


class HealthProbe:
    """Checks one server; many may ask, one check runs."""

    def __init__(self, connect_arguments: Callable[[], Mapping[str, Any]]) -> None:
        self._connect_arguments = connect_arguments
        self._answer = SharedAnswer(self._ask, memory_seconds=MEMORY_SECONDS, name="dbresilience-health")

    def check(self, *, timeout_seconds: float) -> DatabaseHealth:
        """Return the state, at most `MEMORY_SECONDS` old, within `timeout_seconds`."""
        health = self._answer.get(timeout_seconds=timeout_seconds)
        return health or DatabaseHealth(healthy=False, latency_ms=None, state="timeout")

    def _ask(self) -> DatabaseHealth:
        state, latency_ms = ask_briefly(self._connect_arguments, _measure_latency, LONGEST_CHECK_SECONDS)
        return DatabaseHealth(healthy=latency_ms is not None, latency_ms=latency_ms, state=state)
