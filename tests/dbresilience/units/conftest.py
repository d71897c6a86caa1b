"""A unit that meets trouble in its first attempts, and what is told of it."""

from __future__ import annotations

import time
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
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 4})
    run(wrapper, "CREATE TABLE kept (id int PRIMARY KEY, n int)")
    run(wrapper, "INSERT INTO kept VALUES (1, 0), (2, 0)")
    return wrapper


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What the two signals said, in order."""
    seen: list[Any] = []

    def repeated(attempt: int, classification: Any, **details: object) -> None:
        seen.append((attempt, str(classification)))

    def given_up(attempt: int, reason: str, **details: object) -> None:
        seen.append((attempt, reason))

    signals.unit_repeated.connect(repeated)
    signals.unit_given_up.connect(given_up)
    yield seen
    signals.unit_repeated.disconnect(repeated)
    signals.unit_given_up.disconnect(given_up)


def end_session(wrapper: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    assert wrapper.connection is not None
    postgres.execute(f"SELECT pg_terminate_backend({wrapper.connection.info.backend_pid})")
    time.sleep(0.1)


class Unit:
    """Adds one, in a transaction; `trouble` happens within it, in its first `times` attempts."""

    def __init__(self, wrapper: DatabaseWrapper, trouble: Callable[[], object], times: int = 1) -> None:
        self.wrapper, self.trouble, self.times = wrapper, trouble, times
        self.runs = 0
        self.hooks: list[int] = []

    def __call__(self, by: int = 1) -> str:
        self.runs += 1
        number = self.runs
        with transaction.atomic(using=self.wrapper.alias):
            self.wrapper.on_commit(lambda: self.hooks.append(number))
            run(self.wrapper, "UPDATE kept SET n = n + %s WHERE id = 1", [by])
            if number <= self.times:
                self.trouble()
            run(self.wrapper, "SELECT 1")
        return f"run {number}"

    @property
    def value(self) -> object:
        return run(self.wrapper, "SELECT n FROM kept WHERE id = 1")[0][0]
