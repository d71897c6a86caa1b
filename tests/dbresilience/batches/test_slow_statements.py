"""batches.py: the slow-query log tells of each statement what it tells of one that goes alone."""

from __future__ import annotations

from typing import Any

import pytest

from dbresilience import gather, pipeline, signals
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.rows import create, items, owners
from tests.dbresilience.batches.tables import Item, create_tables
from tests.dbresilience.conftest import MakeWrapper, run


@pytest.mark.timed
def test_each_slow_statement_is_logged_as_itself(make_wrapper: MakeWrapper) -> None:
    """With its own text, its own time, and the line that executed it, not the one that sent it."""
    wrapper = make_wrapper(slow_query_seconds=0.1)
    create_tables(wrapper)
    slow: list[Any] = []

    def receiver(query: Any, **details: Any) -> None:
        slow.append(query)
        owners(wrapper).count()  # whoever hears of it may query

    signals.slow_query.connect(receiver)
    with pipeline(using=wrapper.alias):
        create(wrapper, 1)
        _doze(wrapper)
        create(wrapper, 2)
    [query] = slow
    assert query.sql == "SELECT pg_sleep(%s)"
    assert 0.19 < query.duration_seconds < 0.5
    assert query.call_site.endswith("in _doze")
    slow.clear()
    doze = Item._default_manager.using(wrapper.alias).extra(select={"d": "pg_sleep(0.2)"})
    items(wrapper).create(label="x")
    gather(owners(wrapper), doze, owners(wrapper).count, using=wrapper.alias)
    assert [("pg_sleep" in query.sql, query.duration_seconds > 0.19) for query in slow] == [(True, True)]
    slow.clear()
    with pipeline(using=wrapper.alias):
        _doze(wrapper)
        run(wrapper, "SELECT 1; SELECT 2")
    assert [query.sql for query in slow] == ["SELECT pg_sleep(%s)"]


def _doze(wrapper: DatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [0.2])
