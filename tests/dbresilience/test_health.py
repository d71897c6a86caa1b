"""health.py and probes.py: answers within a second, whatever happens, to any Host."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.test import AsyncClient, Client

from dbresilience import health, probes
from dbresilience.base import DatabaseWrapper
from dbresilience.health import MEMORY_SECONDS
from dbresilience.middleware import ProbeMiddleware
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import SEEN, Proxy

from .conftest import MakeWrapper, in_thread, pid_of, works

PROBES = ["/livez", "/readyz", "/api/health/db"]


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.django_db
def test_probes_ignore_the_host_header(path: str, settings: Any) -> None:
    """Load balancers ask by address, without log-in."""
    settings.ALLOWED_HOSTS = ["example.com"]
    response = Client().get(path, HTTP_HOST="10.0.0.7")
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"


@pytest.mark.django_db
def test_the_health_endpoint_has_figures_and_no_secrets(settings: Any) -> None:
    """State and latency, never a host, a user or a password."""
    body = json.loads(Client().get("/api/health/db").content)
    assert body["healthy"] is True
    assert body["latency_ms"] > 0
    assert set(body["pool"]) == {"max_size", "size", "in_use", "idle", "waiting", "saturated", "breaker"}
    given = settings.DATABASES["default"]
    said = json.dumps(body)
    assert not [given[key] for key in ("HOST", "USER", "PASSWORD") if given[key] and str(given[key]) in said]


@pytest.mark.django_db
def test_probes_under_asgi() -> None:
    """The middleware is async-capable."""
    for path in PROBES:
        assert async_to_sync(AsyncClient().get)(path).status_code == 200


def test_livez_touches_nothing() -> None:
    """No database mark on this test: a query would fail it."""
    assert Client().get("/livez").status_code == 200


def test_other_paths_and_methods_go_on() -> None:
    """A POST to a probe's path is not a probe."""
    from django.http import HttpResponse
    from django.test import RequestFactory

    middleware = ProbeMiddleware(lambda request: HttpResponse("inner"))
    assert middleware(RequestFactory().get("/other")).content == b"inner"  # type: ignore[union-attr]
    assert middleware(RequestFactory().post("/livez")).content == b"inner"  # type: ignore[union-attr]
    assert middleware.probes["/livez"] is probes.livez


def asked(path: str) -> tuple[int, dict[str, Any]]:
    response = Client().get(path, HTTP_HOST="10.0.0.7")
    return response.status_code, json.loads(response.content)


def test_a_saturated_pool_is_said_and_stays_ready(make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """To take a busy process away would make the next one busy."""
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 5})
    monkeypatch.setattr(probes, "DEFAULT_DB_ALIAS", wrapper.alias)
    assert asked("/readyz") == (200, {"ready": True, "state": "ok", "breaker": "closed", "saturated": False})
    with wrapper.pinned():
        pid_of(wrapper)
        waiting = in_thread(lambda: pid_of(connections[wrapper.alias]))
        wait_until(lambda: wrapper.resources.snapshot().waiting == 1, what="somebody who waits")
        assert asked("/readyz") == (200, {"ready": True, "state": "ok", "breaker": "closed", "saturated": True})
        status, body = asked("/api/health/db")
    waiting.join(10)
    assert (status, body["healthy"]) == (200, True)
    assert {name: body["pool"][name] for name in ("saturated", "in_use", "max_size", "waiting")} == {
        "saturated": True, "in_use": 1, "max_size": 1, "waiting": 1,
    }  # fmt: skip


@pytest.mark.timed
def test_an_open_breaker_is_not_ready_and_the_server_is_not_asked_in_vain(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The breaker's own attempts are all there is, and asking is what makes them: it closes without any request."""
    wrapper = make_wrapper()
    monkeypatch.setattr(probes, "DEFAULT_DB_ALIAS", wrapper.alias)
    pid_of(wrapper)
    postgres.stop("immediate")
    wait_until(lambda: not works(wrapper) and wrapper.resources.snapshot().breaker == "open", what="the breaker")
    outside: list[object] = []
    monkeypatch.setattr(wrapper.resources.probe, "_ask", lambda: outside.append(1))
    started = time.monotonic()
    assert asked("/readyz") == (
        503, {"ready": False, "state": "cannot_connect", "breaker": "open", "saturated": False},
    )  # fmt: skip
    status, body = asked("/api/health/db")
    assert time.monotonic() - started < 1
    assert (status, body["state"], body["latency_ms"], body["pool"]["breaker"]) == (503, "cannot_connect", None, "open")
    assert outside == []
    monkeypatch.undo()
    monkeypatch.setattr(probes, "DEFAULT_DB_ALIAS", wrapper.alias)
    postgres.start()
    wait_until(lambda: asked("/readyz")[0] == 200, what="readiness")
    assert asked("/readyz")[1]["breaker"] == "closed"


def test_a_full_pool_is_healthy(make_wrapper: MakeWrapper) -> None:
    """Readiness is reachability: saturation must not take all replicas out at once."""
    wrapper = make_wrapper(pool={"max_size": 1})
    with wrapper.pinned():
        assert wrapper.resources.health().healthy


def test_a_stopped_server_is_unhealthy_and_recovers(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """State by name, no error text."""
    resources = make_wrapper().resources
    assert resources.health().healthy
    postgres.stop("immediate")
    time.sleep(MEMORY_SECONDS + 0.1)
    sick = resources.health()
    assert (sick.healthy, sick.latency_ms, sick.state) == (False, None, "cannot_connect")
    postgres.start()
    time.sleep(MEMORY_SECONDS + 0.1)
    assert resources.health().healthy


def test_a_server_that_freezes_during_a_check_does_not_keep_it(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends by itself, also if nobody asks again."""
    monkeypatch.setattr(health, "LONGEST_CHECK_SECONDS", 1.0)
    resources = make_wrapper(url=proxy.url(database_url)).resources
    proxy.cut_when(lambda message: message.sql == "SELECT 1", after=SEEN, how="swallow")
    assert resources.health(timeout_seconds=0.2).state == "timeout"
    wait_until(lambda: not resources.probe._answer.is_asking, timeout_seconds=3, what="the end of the check")
    assert not resources.health().healthy
    time.sleep(MEMORY_SECONDS + 0.1)
    assert resources.health().healthy


def test_health_of_a_moment_ago_is_not_health(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> None:
    """The answer before the one that is late is no answer to a probe."""
    resources = make_wrapper(url=proxy.url(database_url)).resources
    assert resources.health().healthy
    proxy.swallow()
    time.sleep(MEMORY_SECONDS)
    assert resources.health(timeout_seconds=0.1).state == "timeout"


def test_a_process_without_a_thread_to_spare_is_unhealthy(
    wrapper: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system gives it no more threads, the check has an answer all the same, and the next one may begin."""
    resources = wrapper.resources

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert not resources.health().healthy
    assert resources.health().healthy


@pytest.mark.timed
def test_a_frozen_server_is_answered_in_time_with_one_check_in_flight(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """Under a second, and twenty probes leave one thread, not twenty."""
    resources = make_wrapper().resources
    before = threading.active_count()
    postgres.freeze()
    try:
        started = time.monotonic()
        threads = [threading.Thread(target=resources.health) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert time.monotonic() - started < 1
        assert threading.active_count() <= before + 1
        assert resources.health().state in ("timeout", "cannot_connect", "connection_lost")
    finally:
        postgres.thaw()
