"""A wrapper whose COMMITs can be cut off, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import transaction

from dbresilience import signals
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy


@pytest.fixture
def one(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> DatabaseWrapper:
    """A wrapper that reaches its server through the proxy."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 3})
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    return wrapper


@pytest.fixture
def dozing(one: DatabaseWrapper) -> DatabaseWrapper:
    """The same, and its COMMITs of what was inserted take 0.8 s: a deferred trigger is at work."""
    run(
        one,
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.8); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER dozes AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION doze();",
    )
    return one


@pytest.fixture
def looked_up() -> Iterator[list[str]]:
    found: list[str] = []

    def receiver(outcome: str, reason: str, **details: object) -> None:
        found.append(f"{outcome} {reason}".strip())

    signals.commit_looked_up.connect(receiver)
    yield found
    signals.commit_looked_up.disconnect(receiver)


def stored(postgres: ThrowawayPostgres, database_url: str, query: str = "SELECT n FROM kept ORDER BY n") -> list[Any]:
    return [row[0] for row in postgres.execute(query, database=database_url.rpartition("/")[2])]


def insert(wrapper: DatabaseWrapper, n: int, hook: Callable[[], object] = lambda: None) -> None:
    with transaction.atomic(using=wrapper.alias):
        wrapper.on_commit(hook)
        run(wrapper, "INSERT INTO kept VALUES (%s)", [n])
