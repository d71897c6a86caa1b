"""contrib/toolbar.py: the panel says what happened, for each request by itself, under WSGI and ASGI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections

from dbresilience.base import DatabaseWrapper
from tests.support.proxy import SENT, Proxy

from . import site
from .conftest import Visits

Database = Callable[..., DatabaseWrapper]


def closed(visit: Callable[[str], str], path: str) -> str:
    try:
        return visit(path)
    finally:
        connections.close_all()


def test_numbers_are_what_happened(visits: Visits, database: Database, proxy: Proxy) -> None:
    database()
    before = proxy.round_trips
    visits.wsgi("/queries/3")
    stats = visits.stats("/queries/3")
    assert stats["round_trips"] == proxy.round_trips - before == 3
    assert stats["statements"] == len(stats["leases"]) == 3
    assert [lease["ended"] for lease in stats["leases"]] == ["given back after its statement"] * 3
    assert stats["leases"][0]["statements"][0]["sql"] == "SELECT %s::int"
    assert all("site.py" in lease["call_site"] and "in ask" in lease["call_site"] for lease in stats["leases"])
    held = sum(lease["held_ms"] for lease in stats["leases"])
    assert stats["held_ms"] == pytest.approx(held)
    assert visits.panel("/queries/3").nav_subtitle == f"3 leases, 3 round trips, {held:.0f} ms held"


def test_what_held_a_connection_longest(visits: Visits, database: Database) -> None:
    """With both ends of it, and what to do instead."""
    database()
    visits.wsgi("/holds")
    stats = visits.stats("/holds")
    idle = stats["longest_idle"]
    assert idle["ms"] >= 150
    assert idle["after"].endswith("in ask")
    assert "on_commit" in idle["hint"]
    assert stats["leases"][0]["ended"] == "given back after its transaction"
    content = visits.panel("/holds").content
    assert "hold-connections-briefly" in content
    assert "in ask" in content


def test_batches_travel_in_one_round_trip_each(visits: Visits, database: Database, proxy: Proxy) -> None:
    database()
    before = proxy.round_trips
    visits.wsgi("/batches")
    stats = visits.stats("/batches")
    assert stats["round_trips"] == proxy.round_trips - before
    gathered, transaction = stats["leases"]
    assert (gathered["round_trips"], len(gathered["statements"])) == (1, 3)
    assert transaction["ended"] == "given back after its transaction"


def test_what_is_held_until_the_request_ends(visits: Visits, database: Database) -> None:
    """The page is made before; the store has what came after."""
    database()
    visits.wsgi("/keeps")
    stats = visits.stats("/keeps")
    assert stats["leases"][0]["ended"].startswith("given back at the end of the request")
    assert stats["leases"][0]["round_trips"] > 1, "cleaning the session is a round trip of the request, too"
    assert any("is kept to the end of the request" in event for event in stats["events"])


def test_retries_and_slow_queries(visits: Visits, database: Database, proxy: Proxy) -> None:
    database(slow_query_seconds=0.1)
    visits.wsgi("/fails-once")
    stats = visits.stats("/fails-once")
    assert stats["retries"] == 1
    assert "unit" in stats["events"][0]
    assert "serialization" in stats["events"][0]
    assert stats["leases"][0]["statements"][0]["error"] == "40001"
    visits.wsgi("/slow")
    stats = visits.stats("/slow")
    assert stats["retries"] == 0
    assert stats["events"] == []
    (query,) = stats["slow_queries"]
    assert query["sql"] == "SELECT pg_sleep(%s)"
    assert query["ms"] >= 120
    assert stats["leases"][0]["statements"][0]["is_slow"]


def test_a_connection_that_was_lost(visits: Visits, database: Database, proxy: Proxy) -> None:
    database()
    proxy.cut_when(lambda message: "SELECT 1::int" in (message.sql or ""), after=SENT)
    visits.wsgi("/queries/1")
    stats = visits.stats("/queries/1")
    assert [lease["is_lost"] for lease in stats["leases"]] == [True, False]
    assert stats["retries"] == 1
    assert "djDebugRowWarning" in visits.panel("/queries/1").content


def test_a_body_that_outlives_its_view(visits: Visits, database: Database, proxy: Proxy) -> None:
    database()
    before = proxy.round_trips
    assert visits.wsgi("/streams/4") == "4444"
    stats = visits.stats("/streams/4")
    assert len(stats["leases"]) == stats["round_trips"] == proxy.round_trips - before == 4


def test_a_body_that_nobody_reads_to_its_end(visits: Visits, database: Database) -> None:
    """What happened until then is kept, under ASGI, where nobody closes the response."""
    database()

    async def leave() -> None:
        from asgiref.testing import ApplicationCommunicator
        from django.core.handlers.asgi import ASGIHandler

        scope = {"type": "http", "method": "GET", "path": "/async/streams/9", "query_string": b"", "headers": [],
                 "client": ("127.0.0.1", 1), "server": ("localhost", 80)}  # fmt: skip
        communicator = ApplicationCommunicator(ASGIHandler(), scope)
        await communicator.send_input({"type": "http.request", "body": b""})
        for _ in range(3):
            await communicator.receive_output(timeout=10)
        await communicator.send_input({"type": "http.disconnect"})
        await communicator.wait(timeout=10)

    async_to_sync(leave)()
    assert 2 <= len(visits.stats("/async/streams/9")["leases"]) < 9


def test_concurrent_requests_in_threads(visits: Visits, database: Database) -> None:
    """Each has what it did itself; bodies, too."""
    database(pool={"max_size": 8})
    paths = [f"/{kind}/{number}" for number in range(1, 6) for kind in ("queries", "streams")]
    with ThreadPoolExecutor(len(paths)) as executor:
        list(executor.map(lambda path: closed(visits.wsgi, path), paths))
    for path in paths:
        stats, number = visits.stats(path), int(path.rsplit("/", 1)[1])
        assert len(stats["leases"]) == stats["round_trips"] == number, path


def test_concurrent_requests_in_tasks(visits: Visits, database: Database) -> None:
    """Their database work runs in threads, their bodies after the view; none is another's."""
    database(pool={"max_size": 8})
    paths = [f"/async/{kind}/{number}" for number in range(1, 6) for kind in ("queries", "streams")]

    async def visit_all() -> None:
        await asyncio.gather(*(visits.asgi(path) for path in paths))

    async_to_sync(visit_all)()
    for path in paths:
        stats, number = visits.stats(path), int(path.rsplit("/", 1)[1])
        wanted = number if "streams" in path else 2 * number
        assert len(stats["leases"]) == stats["round_trips"] == wanted, path
        assert all("site.py" in lease["call_site"] for lease in stats["leases"]), path


def test_a_request_without_a_database(visits: Visits, database: Database) -> None:
    database()
    visits.wsgi("/queries/0")
    assert visits.panel("/queries/0").nav_subtitle == "0 leases, 0 round trips, 0 ms held"
    assert "took no connection" in visits.panel("/queries/0").content


def test_the_store_has_what_is_shown(visits: Visits, database: Database) -> None:
    """The toolbar shows a panel when somebody opens it, from what it kept as JSON, also after the request's end."""
    from debug_toolbar.toolbar import DebugToolbar

    database()
    visits.wsgi("/streams/2")
    toolbar = visits.toolbars["/streams/2"]
    fetched: Any = DebugToolbar.fetch(getattr(toolbar, "request_id", None) or getattr(toolbar, "store_id", None))
    panel = fetched.get_panel_by_id("ConnectionsPanel")
    assert panel.nav_subtitle.startswith("2 leases, 2 round trips")
    assert "SELECT %s::int" in panel.content
    json.dumps(panel.get_stats())


def test_a_forgotten_request_is_not_kept_again(visits: Visits, database: Database) -> None:
    from debug_toolbar.toolbar import DebugToolbar

    database()
    path = "/streams/1"
    visits.wsgi(path)
    toolbar = visits.toolbars[path]
    if not hasattr(toolbar.store, "clear"):
        pytest.skip("this version keeps no JSON")
    toolbar.store.clear()
    visits.panel(path)._record()
    assert DebugToolbar.fetch(toolbar.request_id) is None


def test_without_the_app_a_check_says_so(visits: Visits, settings: Any) -> None:
    from dbresilience.contrib.toolbar import ConnectionsPanel

    assert ConnectionsPanel.run_checks() == []
    settings.INSTALLED_APPS = [name for name in settings.INSTALLED_APPS if name != "dbresilience"]
    (error,) = ConnectionsPanel.run_checks()
    assert error.id == "dbresilience.E004"


def test_no_parameters_are_kept(visits: Visits, database: Database) -> None:
    database(slow_query_seconds=0, slow_query_parameters=True)
    visits.wsgi("/batches")
    assert "group 1" not in json.dumps(visits.stats("/batches"))
    assert site.alias in json.dumps(visits.stats("/batches"))
