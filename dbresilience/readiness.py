"""May this process be sent requests? It is warm, its breaker is not open, and the server answers outside the pool.

How full the pool is belongs to `PoolSnapshot`: being busy is no reason to be sent no requests.
"""

from __future__ import annotations

from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from .errors import DatabaseUnavailable
from .health import DatabaseHealth
from .meanings import while_connecting

if TYPE_CHECKING:
    from .resources import DatabaseResources

ANSWER_SECONDS = 0.8
"""Longest time that an answer takes; orchestrators wait for one second."""
BREAKER_SECONDS = 0.4
"""How much of it the breaker's own attempt to connect may take."""


def readiness(resources: DatabaseResources) -> DatabaseHealth:
    """Return what stands in the way of requests, the worst first; within `ANSWER_SECONDS`."""
    health = reachability(resources)
    if health.healthy and resources.snapshot().warm_up == "running":
        return replace(health, healthy=False, state="warming_up")
    return health


def reachability(resources: DatabaseResources) -> DatabaseHealth:
    """Return what a request would meet, within `ANSWER_SECONDS`.

    An open breaker is not gone round: asking is what lets it try again, at its own pace, so that a process without
    requests finds out that the database is back.
    """
    began = monotonic()
    admission = resources.pool.admission if resources.pool is not None else None
    if admission is not None and admission.state == "open":
        try:
            admission.admit(BREAKER_SECONDS)
        except DatabaseUnavailable:
            state = while_connecting(admission.meaning).name
            return DatabaseHealth(healthy=False, latency_ms=None, state=state)
    return resources.health(timeout_seconds=ANSWER_SECONDS - (monotonic() - began))
