"""Wrappers on a throwaway server: what a thread of a Django process has as `connections[alias]`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import environ
import pytest
from django.db import connections, transaction

from dbresilience import signals
from dbresilience.base import DatabaseWrapper
from dbresilience.operators import OrderFile
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy

_numbers = itertools.count()

MakeWrapper = Callable[..., DatabaseWrapper]


def settings_for(url: str, **options: Any) -> dict[str, Any]:
    """The entry of settings.DATABASES for `url`, with every key that Django fills in."""
    given = environ.Env.db_url_config(url)
    return {
        **connections["default"].settings_dict,
        "ENGINE": "dbresilience",
        **{key: given[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")},
        "PORT": str(given["PORT"] or ""),
        "OPTIONS": options,
    }


@pytest.fixture
def make_wrapper(database_url: str, django_db_blocker: Any) -> Iterator[MakeWrapper]:
    """`make_wrapper(pool={"max_size": 2})`: a new wrapper, all of one test on one alias."""
    alias = f"throwaway_{next(_numbers)}"
    made: list[DatabaseWrapper] = []

    def make(*, url: str = database_url, **options: Any) -> DatabaseWrapper:
        wrapper = DatabaseWrapper(settings_for(url, **options), alias)
        # `atomic` and the receivers of connection_created look it up by its alias.
        connections.settings[alias] = wrapper.settings_dict
        connections[alias] = wrapper
        made.append(wrapper)
        return wrapper

    with django_db_blocker.unblock():
        yield make
        for wrapper in made:
            wrapper.inc_thread_sharing()
            wrapper.close()
            wrapper.resources.close("the test ended")
        del connections.settings[alias]
        del connections[alias]


@pytest.fixture
def wrapper(make_wrapper: MakeWrapper) -> DatabaseWrapper:
    return make_wrapper()


def pid_of(wrapper: DatabaseWrapper) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def one(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> DatabaseWrapper:
    """A wrapper that reaches its server through the proxy."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 3})
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    return wrapper


@pytest.fixture
def looked_up() -> Iterator[list[str]]:
    found: list[str] = []

    def receiver(outcome: str, reason: str, **details: object) -> None:
        found.append(f"{outcome} {reason}".strip())

    signals.commit_looked_up.connect(receiver)
    yield found
    signals.commit_looked_up.disconnect(receiver)


def run(wrapper: DatabaseWrapper, query: str, params: Any = None) -> list[tuple[object, ...]]:
    with wrapper.cursor() as cursor:
        cursor.execute(query, params)
        return cursor.fetchall() if cursor.description else []


def stored(postgres: ThrowawayPostgres, database_url: str, query: str = "SELECT n FROM kept ORDER BY n") -> list[Any]:
    return [row[0] for row in postgres.execute(query, database=database_url.rpartition("/")[2])]


def insert(wrapper: DatabaseWrapper, n: int, hook: Callable[[], object] = lambda: None) -> None:
    with transaction.atomic(using=wrapper.alias):
        wrapper.on_commit(hook)
        run(wrapper, "INSERT INTO kept VALUES (%s)", [n])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders"


@pytest.fixture
def file(folder: Path) -> OrderFile:
    return OrderFile(("h", "1", "n", "u"), str(folder))


@pytest.fixture
def pooled(make_wrapper: MakeWrapper, folder: Path) -> DatabaseWrapper:
    return make_wrapper(pool={"timeout": 0.6}, runtime_folder=str(folder))


def orders_of(wrapper: DatabaseWrapper) -> OrderFile:
    found = wrapper.resources.orders
    assert found is not None
    return found


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
