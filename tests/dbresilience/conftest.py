"""Wrappers on a throwaway server: what a thread of a Django process has as `connections[alias]`."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import environ
import pytest
from django.db import OperationalError, connections

from dbresilience.base import DatabaseWrapper
from dbresilience.operators import OrderFile
from tests.settings import BASE_DIR
from tests.support.postgres import wait_until
from tests.support.site import site_environment

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
        if made:  # a test may have been skipped before it came to that
            del connections.settings[alias]
            del connections[alias]


@pytest.fixture
def wrapper(make_wrapper: MakeWrapper) -> DatabaseWrapper:
    return make_wrapper()


def pid_of(wrapper: DatabaseWrapper) -> int:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def works(wrapper: DatabaseWrapper) -> bool:
    """Whether a query is answered now."""
    try:
        pid_of(wrapper)
    except OperationalError:
        return False
    return True


def wait_for_probes(wrapper: DatabaseWrapper) -> None:
    """Wait for the one that a refused request may have left behind."""
    pool = wrapper.resources.pool
    assert pool is not None
    wait_until(lambda: not pool.admission._probes, what="the end of its own attempts")


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def run(wrapper: DatabaseWrapper, query: str, params: Any = None) -> list[tuple[object, ...]]:
    with wrapper.cursor() as cursor:
        cursor.execute(query, params)
        return cursor.fetchall() if cursor.description else []


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


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(database_url: str, folder: Path) -> Command:
    """`command("status", "--json")` as an operator would give it, in a process of its own."""

    def give(*arguments: str, url: str = f"{database_url}?runtime_folder={folder}") -> Any:
        return subprocess.run(
            [sys.executable, "manage.py", "dbresilience", *arguments],
            cwd=BASE_DIR, env=site_environment(DATABASE_URL=url), capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return give
