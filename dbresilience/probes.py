"""The probes: `livez` touches nothing, `readyz` answers in under a second, `database` has figures.

None of them names a host, a user or an error text. Mounted by `middleware.ProbeMiddleware`, or
as views in a URLconf.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.http import HttpRequest, HttpResponse, JsonResponse

from .health import DatabaseHealth, HealthProbe
from .resources import DatabaseResources, configured_retry_after_seconds, get_database_resources

_other_engines: dict[str, HealthProbe] = {}


def livez(request: HttpRequest) -> HttpResponse:
    """Answer that the process lives; touches nothing."""
    return _uncached(JsonResponse({"alive": True}))


def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 when the database answers and the warm-up is over, 503 otherwise, in under a second."""
    health, resources = _look_at(DEFAULT_DB_ALIAS)
    if resources is not None and health.healthy and resources.snapshot().warm_up == "running":
        health = replace(health, healthy=False, state="warming_up")
    return _answer({"ready": health.healthy, "state": health.state}, health)


def database(request: HttpRequest) -> HttpResponse:
    """Answer with state, latency in milliseconds, the numbers of the pool and the state of its breaker."""
    health, resources = _look_at(DEFAULT_DB_ALIAS)
    body: dict[str, Any] = {
        "healthy": health.healthy,
        "latency_ms": health.latency_ms,
        "state": health.state,
    }
    if resources is not None:
        pool = resources.snapshot()
        body["pool"] = {
            "max_size": pool.max_size,
            "size": pool.size,
            "in_use": pool.in_use,
            "idle": pool.idle,
            "waiting": pool.waiting,
            "breaker": pool.breaker,
        }
    return _answer(body, health)


def _look_at(alias: str) -> tuple[DatabaseHealth, DatabaseResources | None]:
    try:
        resources = get_database_resources(alias)
    except TypeError:
        # Another PostgreSQL backend: the probes go on working when ENGINE is changed back.
        probe = _other_engines.setdefault(alias, HealthProbe(lambda: connections[alias].get_connection_params()))
        return probe.check(timeout_seconds=0.8), None
    return resources.health(), resources


def _answer(body: dict[str, Any], health: DatabaseHealth) -> HttpResponse:
    response = JsonResponse(body, status=200 if health.healthy else 503)
    if not health.healthy:
        response["Retry-After"] = str(configured_retry_after_seconds())
        # The answer to a probe is its result, not an error of the site.
        response._has_been_logged = True  # type: ignore[attr-defined]
    return _uncached(response)


def _uncached(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    return response
