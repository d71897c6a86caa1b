"""batches.py: the slow-query log tells of each statement what it tells of one that goes alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db import DataError, OperationalError

from dbresilience import deadline, gather, pipeline, signals
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.rows import create, items, owners
from tests.dbresilience.batches.tables import Item, create_tables
from tests.dbresilience.conftest import MakeWrapper, run, works
from tests.support.postgres import ThrowawayPostgres, wait_until


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


@pytest.mark.timed
def test_a_slow_statement_that_fails_is_logged_as_one_that_goes_alone(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(slow_query_seconds=0.1)
    create_tables(wrapper)
    slow: list[Any] = []

    def receiver(query: Any, **details: Any) -> None:
        slow.append((query.sql, query.rows))

    signals.slow_query.connect(receiver)
    failing = "SELECT 1 / (0 * random())::int FROM pg_sleep(0.2)"
    with pytest.raises(DataError):
        run(wrapper, failing)
    with pytest.raises(DataError), pipeline(using=wrapper.alias):
        _begin(wrapper, failing)
        _begin(wrapper, "SELECT 1")
    with pytest.raises(DataError):
        gather(partial(run, wrapper, failing), owners(wrapper).count, using=wrapper.alias)
    assert slow == [(failing, -1)] * 3


@pytest.fixture
def named() -> Iterator[list[str]]:
    """The statements that were given up at a deadline."""
    queries: list[str] = []

    def receiver(query: str, **details: Any) -> None:
        queries.append(query)

    signals.statement_overdue.connect(receiver)
    yield queries
    signals.statement_overdue.disconnect(receiver)


@pytest.mark.timed
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_ran_at_the_deadline_is_named(make_wrapper: MakeWrapper, named: list[str], place: int) -> None:
    """Of several that went together, the one that was cancelled."""
    wrapper = make_wrapper()
    create_tables(wrapper)
    statements = ["SELECT 1", "SELECT 2"]
    statements.insert(place, "SELECT pg_sleep(5)")
    with pytest.raises(OperationalError), deadline(0.3), pipeline(using=wrapper.alias):
        for statement in statements:
            _begin(wrapper, statement)
    assert named == ["SELECT pg_sleep(5)"]


@pytest.mark.timed
def test_what_was_never_answered_is_named(
    make_wrapper: MakeWrapper, named: list[str], postgres: ThrowawayPostgres
) -> None:
    """On a server that is frozen while it is at the second of three."""
    wrapper = make_wrapper()
    create_tables(wrapper)
    freezing = threading.Timer(0.4, postgres.freeze)
    with pytest.raises(OperationalError), deadline(1.0), pipeline(using=wrapper.alias):
        for statement in ("SELECT 1", "SELECT pg_sleep(5)", "SELECT 2"):
            _begin(wrapper, statement)
        freezing.start()
    freezing.join()
    postgres.thaw()
    wait_until(lambda: works(wrapper))  # so that nothing is under way when the test ends
    assert named == ["SELECT pg_sleep(5)"]


def _begin(wrapper: DatabaseWrapper, statement: str) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute(statement)


def _doze(wrapper: DatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [0.2])
