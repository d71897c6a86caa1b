"""liveness.py: whether a connection lives is seen without asking, and nothing that came meanwhile is lost."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dbresilience.connection import ResilientConnection
from dbresilience.liveness import is_alive, is_hung_up
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import error_response
from tests.support.proxy import Proxy


@pytest.fixture
def connection(database_url: str, proxy: Proxy) -> Iterator[ResilientConnection]:
    with ResilientConnection.connect(proxy.url(database_url), autocommit=True) as connection:
        yield connection


@pytest.fixture
def notify(connection: ResilientConnection, postgres: ThrowawayPostgres) -> Callable[[str], None]:
    """Have news lie in the socket of the connection."""
    connection.execute("LISTEN news")
    connection.has_session_state = True  # as a lease notes

    def send(payload: str) -> None:
        postgres.execute(f"NOTIFY news, '{payload}'", database=connection.info.dbname)
        wait_until(lambda: is_readable(connection))

    return send


def test_one_that_says_nothing_is_alive(connection: ResilientConnection) -> None:
    assert is_alive(connection)


def test_one_with_news_is_alive(connection: ResilientConnection, notify: Callable[[str], None]) -> None:
    """Nobody is told of them yet; whoever asks for them later is."""
    notify("one")
    assert is_alive(connection)
    notify("two")
    assert is_alive(connection)
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert [news.payload for news in connection.notifies(timeout=0)] == ["one", "two"]


def test_handlers_hear_news_at_once(connection: ResilientConnection, notify: Callable[[str], None]) -> None:
    heard: list[str] = []
    connection.add_notify_handler(lambda news: heard.append(news.payload))
    notify("one")
    assert is_alive(connection)
    assert heard == ["one"]


def test_the_last_words_are_kept(connection: ResilientConnection, postgres: ThrowawayPostgres) -> None:
    end(connection, postgres)
    assert not is_alive(connection)
    assert connection.farewell == "57P01"


def test_the_last_words_are_heard_after_news(
    connection: ResilientConnection, notify: Callable[[str], None], postgres: ThrowawayPostgres
) -> None:
    notify("one")
    end(connection, postgres)
    assert not is_alive(connection)
    assert connection.farewell == "57P01"


def test_the_last_words_are_heard_behind_more_than_one_read_takes(
    connection: ResilientConnection, postgres: ThrowawayPostgres
) -> None:
    connection.execute("LISTEN news")
    connection.has_session_state = True
    many = "SELECT pg_notify('news', repeat('x', 7000) || n) FROM generate_series(1, 5) AS n"
    postgres.execute(many, database=connection.info.dbname)
    end(connection, postgres)
    wait_until(lambda: is_hung_up(connection))
    assert not is_alive(connection)
    assert connection.farewell == "57P01"
    assert connection._notifies_backlog is not None
    assert len(connection._notifies_backlog) == 5


def test_the_last_words_suffice(connection: ResilientConnection, proxy: Proxy) -> None:
    """The end of the connection may come a moment later."""
    (link,) = proxy.links
    proxy._do(lambda: link.client.send(error_response("57P01", "terminating connection")))
    wait_until(lambda: is_readable(connection))
    assert not is_alive(connection)


def test_one_that_was_cut_off_is_dead(connection: ResilientConnection, proxy: Proxy) -> None:
    proxy.cut()
    wait_until(lambda: is_hung_up(connection))
    assert not is_alive(connection)


def test_one_that_was_cut_off_after_news_is_dead(
    connection: ResilientConnection, notify: Callable[[str], None], proxy: Proxy
) -> None:
    """The end is behind them."""
    notify("one")
    proxy.cut()
    wait_until(lambda: is_hung_up(connection))
    assert not is_alive(connection)


def test_rows_that_are_still_to_come_are_not_taken(connection: ResilientConnection) -> None:
    """A COMMIT looks, too, and may come while rows are streamed."""
    rows = connection.cursor().stream("SELECT generate_series(1, 5)")
    first: Any = next(rows)
    assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.ACTIVE
    assert is_alive(connection)
    assert [first, *rows] == [(number,) for number in range(1, 6)]


def end(connection: ResilientConnection, postgres: ThrowawayPostgres) -> None:
    pid = connection.info.backend_pid
    postgres.execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: is_hung_up(connection))


def is_readable(connection: ResilientConnection) -> bool:
    return bool(select.select([connection.pgconn.socket], [], [], 0)[0])
