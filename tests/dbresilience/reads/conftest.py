"""A wrapper whose connection can be lost, and how often it was asked again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from dbresilience import signals
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy


@pytest.fixture
def one(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> DatabaseWrapper:
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 1, "timeout": 3})
    run(wrapper, "CREATE TABLE kept (n int)")
    run(wrapper, "INSERT INTO kept VALUES (1)")
    return wrapper


@pytest.fixture
def repeated() -> Iterator[list[int]]:
    seen: list[int] = []

    def receiver(attempt: int, **details: object) -> None:
        seen.append(attempt)

    signals.read_repeated.connect(receiver)
    yield seen
    signals.read_repeated.disconnect(receiver)


@pytest.fixture
def terminate(postgres: ThrowawayPostgres) -> Callable[[DatabaseWrapper], None]:
    """End the session of a wrapper's lease, and wait until this side can know."""

    def end(wrapper: DatabaseWrapper) -> None:
        wrapper.ensure_connection()  # a transaction takes it with its first cursor
        pid = wrapper.connection.info.backend_pid
        postgres.execute(f"SELECT pg_terminate_backend({pid})")
        query = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}"
        wait_until(lambda: postgres.execute(query) == [(0,)])
        time.sleep(0.05)

    return end
