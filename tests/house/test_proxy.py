"""The proxy breaks a network in the ways that it says."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import Message, is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy


@pytest.fixture
def proxy(postgres: ThrowawayPostgres) -> Iterator[Proxy]:
    with Proxy(postgres.port) as proxy:
        yield proxy


@pytest.fixture
def url(postgres: ThrowawayPostgres, proxy: Proxy) -> str:
    return proxy.url(postgres.url())


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection]:
    connection = psycopg.connect(url, autocommit=True)
    yield connection
    connection.close()


def ask(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT 1").fetchone()
    assert row
    return int(row[0])


def test_passes_and_counts(proxy: Proxy, connection: psycopg.Connection) -> None:
    """Also what arrives in many pieces."""
    before = proxy.round_trips
    assert ask(connection) == 1
    assert proxy.round_trips == before + 1
    long = connection.execute("SELECT %s || repeat('x', 10000000)", ["y" * 5_000_000]).fetchone()
    assert long is not None
    assert len(long[0]) == 15_000_000
    assert proxy.round_trips == before + 2
    assert proxy.statements[0] == "SELECT 1"
    assert proxy.messages["StartupMessage"] == 1
    assert (proxy.open, len(proxy.opened_at), proxy.most_opened_within(1)) == (1, 1, 1)
    connection.close()
    wait_until(lambda: proxy.open == 0)


def test_nobody_listens(proxy: Proxy, url: str, connection: psycopg.Connection) -> None:
    proxy.refuse()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        psycopg.connect(url)
    assert ask(connection) == 1
    proxy.restore()
    psycopg.connect(url).close()


def test_resets(proxy: Proxy, url: str, connection: psycopg.Connection) -> None:
    """Which libpq does not tell from an orderly end; a bare socket does."""
    with socket.create_connection(("127.0.0.1", proxy.port)) as bare:
        wait_until(lambda: proxy.open == 2)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            bare.recv(1)
    with pytest.raises(psycopg.OperationalError, match="closed the connection"):
        ask(connection)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    proxy.restore()
    psycopg.connect(url).close()


def test_cuts(proxy: Proxy, url: str, connection: psycopg.Connection) -> None:
    proxy.cut()
    with pytest.raises(psycopg.OperationalError, match="closed the connection"):
        ask(connection)
    psycopg.connect(url).close()


@pytest.mark.slow
def test_swallows(proxy: Proxy, url: str, connection: psycopg.Connection) -> None:
    """Not even a SYN is answered; what was sent arrives when all is well."""
    proxy.swallow()
    opened = len(proxy.opened_at)
    started = time.monotonic()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(url, connect_timeout=2)
    assert time.monotonic() - started > 1.9
    assert len(proxy.opened_at) == opened
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(ask, connection)
        time.sleep(0.3)
        assert not answer.done()
        proxy.restore()
        assert answer.result(2) == 1
    psycopg.connect(url).close()


@pytest.mark.timed
def test_delays(proxy: Proxy, connection: psycopg.Connection) -> None:
    """Each way, and in order also when the delay ends."""
    proxy.delay(0.1)
    started = time.monotonic()
    ask(connection)
    assert 0.2 <= time.monotonic() - started < 0.4
    proxy.delay(0)
    started = time.monotonic()
    ask(connection)
    assert time.monotonic() - started < 0.1


def test_denies(proxy: Proxy, url: str) -> None:
    """FATAL in the server's place, with its code."""
    proxy.deny("57P03", "the database system is starting up")
    with pytest.raises(psycopg.OperationalError, match="FATAL:  the database system is starting up"):
        psycopg.connect(url)
    proxy.restore()
    psycopg.connect(url).close()


@pytest.mark.parametrize(("after", "stored"), [(SEEN, 0), (SENT, 1), (ANSWERED, 1)])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_cuts_at_a_commit(
    postgres: ThrowawayPostgres, proxy: Proxy, url: str, after: str, stored: int, how: str
) -> None:
    """Its client sees the same each time; the server has done it or not."""
    postgres.execute("DROP TABLE IF EXISTS cut; CREATE TABLE cut ()")
    cut = proxy.cut_when(is_commit, after=after, how=how, then=proxy.refuse)
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO cut DEFAULT VALUES")
        with pytest.raises(psycopg.OperationalError, match="closed the connection"):
            connection.commit()
    assert cut.happened.is_set()
    with pytest.raises(psycopg.OperationalError, match="Connection refused"):
        psycopg.connect(url)
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    wait_until(lambda: postgres.execute(query) == [(1,)])
    assert postgres.execute("SELECT count(*) FROM cut") == [(stored,)]


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
def test_cuts_at_an_extended_query(proxy: Proxy, connection: psycopg.Connection, after: str) -> None:
    """Which ends with a Sync; what was answered before arrives."""
    assert ask(connection) == 1

    def is_two(message: Message) -> bool:
        return message.sql == "SELECT 2 + $1"

    proxy.cut_when(is_two, after=after)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 2 + %s", [1])


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
def test_cuts_while_connecting(proxy: Proxy, url: str, after: str) -> None:
    proxy.cut_when(lambda message: message.kind == "StartupMessage", after=after)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    psycopg.connect(url).close()


def test_a_cut_may_swallow(proxy: Proxy, connection: psycopg.Connection) -> None:
    """The server has done it, its client hears nothing at all."""
    cut = proxy.cut_when(lambda message: message.sql == "SELECT 3", after=SENT, how="swallow")
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(connection.execute, "SELECT 3")
        assert cut.happened.wait(2)
        time.sleep(0.1)
        assert not answer.done()
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            answer.result(2)


def test_a_server_that_is_gone_is_a_reset(postgres: ThrowawayPostgres, proxy: Proxy, url: str) -> None:
    postgres.stop()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
