"""The toolbar's own panels beside ours, and beside statements that wait: each shows what there was, once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group
from django.db import DatabaseError

from dbresilience.base import DatabaseWrapper

from . import site
from .conftest import Visits

Database = Callable[..., DatabaseWrapper]

EVERY_PATH = ["/queries/2", "/holds", "/batches", "/keeps", "/fails-once", "/slow", "/streams/2", "/template"]


@pytest.mark.parametrize("path", EVERY_PATH)
def test_every_panel_can_be_shown(path: str, visits: Visits, database: Database) -> None:
    """SQL, Timer, Request, Headers, Templates, Cache, Signals, Profiling and the rest."""
    database(slow_query_seconds=0.1)
    visits.wsgi(path)
    toolbar = visits.toolbars[path]
    assert {"SQLPanel", "ProfilingPanel", "ConnectionsPanel"} <= {panel.panel_id for panel in toolbar.enabled_panels}
    for panel in toolbar.enabled_panels:
        str(panel.nav_subtitle)
        if panel.has_content:
            assert panel.title
            assert panel.content, panel.panel_id


@pytest.mark.parametrize("path", ["/async/queries/2", "/async/streams/2"])
def test_every_panel_can_be_shown_under_asgi(path: str, visits: Visits, database: Database) -> None:
    database()
    async_to_sync(visits.asgi)(path)
    toolbar = visits.toolbars[path]
    assert {"SQLPanel", "ConnectionsPanel"} <= {panel.panel_id for panel in toolbar.enabled_panels}
    for panel in toolbar.enabled_panels:
        if panel.has_content:
            assert panel.content, panel.panel_id


def shown_queries(visits: Visits, path: str) -> list[dict[str, Any]]:
    queries: list[dict[str, Any]] = visits.panel(path, "SQLPanel").get_stats()["queries"]
    return queries


def test_the_sql_panel_lists_what_gather_and_pipeline_ask_once(visits: Visits, database: Database) -> None:
    """Although functions of gather() are called twice; with the values, and as part of their transaction."""
    database()
    visits.wsgi("/batches")
    queries = [query for query in shown_queries(visits, "/batches") if "auth_group" in query["raw_sql"]]
    reads = [query for query in queries if query["raw_sql"].startswith("SELECT")]
    assert len(reads) == 3
    assert any("one" in query["sql"] for query in reads), "with its value"
    assert any("COUNT" in query["raw_sql"] for query in reads)
    writes = [query["raw_sql"] for query in queries if query not in reads]
    assert [sql.split()[0] for sql in writes] == ["UPDATE", "UPDATE", "UPDATE", "INSERT"]
    stats = visits.stats("/batches")
    ours = [statement["sql"] for lease in stats["leases"] for statement in lease["statements"]]
    assert sorted(sql.split()[0] for sql in ours) == sorted(query["raw_sql"].split()[0] for query in
                                                            shown_queries(visits, "/batches"))  # fmt: skip


def test_an_error_in_a_pipeline_is_the_same(visits: Visits, database: Database) -> None:
    database()

    def fails(request: Any) -> Any:
        from dbresilience import pipeline

        with pytest.raises(DatabaseError, match="division"), pipeline(using=site.alias):
            Group.objects.using(site.alias).filter(name="x").update(name="y")
            from django.db import connections

            with connections[site.alias].cursor() as cursor:
                cursor.execute("SELECT 1/0")
        return site.page("failed")

    from django.urls import path

    from . import urls

    urls.urlpatterns.append(path("fails", fails))
    visits.wsgi("/fails")
    statements = visits.stats("/fails")["leases"][0]["statements"]
    assert [statement["error"] for statement in statements] == [None, "22012"]
    assert len(shown_queries(visits, "/fails")) == 2
