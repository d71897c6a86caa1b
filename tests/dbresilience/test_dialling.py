"""dialling.py: a refused connection says why, in a way that is not translated."""

from __future__ import annotations

import gc
import time

import psycopg
import pytest

from dbresilience.connection import ProbingConnection, ResilientConnection
from dbresilience.dialling import nobody_listened
from dbresilience.errors import classify
from dbresilience.health import HealthProbe
from tests.support.ports import free_port
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy

from .conftest import MakeWrapper


def test_a_refused_connection_has_its_sqlstate(postgres: ThrowawayPostgres) -> None:
    """libpq would keep it to itself; the text is the usual one."""
    with pytest.raises(psycopg.OperationalError) as caught:
        ResilientConnection.connect(postgres.url("no_such_database"))
    assert caught.value.sqlstate == "3D000"
    assert "3D000" not in str(caught.value)
    assert "LOCATION" not in str(caught.value)
    assert 'database "no_such_database" does not exist' in str(caught.value)


def test_a_refusal_knows_its_attempt_and_not_the_password(postgres: ThrowawayPostgres) -> None:
    """As psycopg's own errors do; who shows the attributes of an error shows no secret."""
    with pytest.raises(psycopg.OperationalError) as caught:
        ResilientConnection.connect(postgres.url("no_such_database"), password="opensesame")
    assert caught.value.pgconn is not None
    assert caught.value.pgconn.db == b"no_such_database"
    assert not caught.value.pgconn.used_password
    assert "opensesame" not in repr(caught.value.pgconn)


def test_of_several_addresses_the_last_code_counts(postgres: ThrowawayPostgres) -> None:
    """As with localhost, which is two."""
    port = postgres.port
    with pytest.raises(psycopg.OperationalError) as caught:
        ResilientConnection.connect(f"host=127.0.0.1,127.0.0.1 port={free_port()},{port} dbname=nowhere user=postgres")
    assert caught.value.sqlstate == "3D000"
    assert not nobody_listened(caught.value)


def test_nobody_listened() -> None:
    """Recognised at one address and at all of several."""
    for conninfo in (
        f"host=127.0.0.1 port={free_port()}",
        f"host=127.0.0.1,127.0.0.1 port={free_port()},{free_port()}",
        "host=/no/such/folder",
    ):
        with pytest.raises(psycopg.OperationalError) as caught:
            ResilientConnection.connect(conninfo)
        assert nobody_listened(caught.value), caught.value


def test_errors_of_a_session_are_not_verbose(make_wrapper: MakeWrapper) -> None:
    """The verbosity is raised for connecting only."""
    wrapper = make_wrapper()
    with wrapper.cursor() as cursor, pytest.raises(psycopg.errors.SyntaxError) as caught:
        cursor.cursor.execute("nonsense")
    assert "42601" not in str(caught.value)
    assert "LOCATION" not in str(caught.value)


@pytest.mark.timed
def test_a_probe_gives_up_where_packets_are_swallowed(database_url: str, proxy: Proxy) -> None:
    """Long before `connect_timeout`, since the next one may get through. It was not told that there is no writer."""
    proxy.swallow()
    started = time.monotonic()
    with pytest.raises(psycopg.errors.ConnectionTimeout) as caught:
        ProbingConnection.connect(proxy.url(database_url), connect_timeout=5, target_session_attrs="read-write")
    assert 0.9 < time.monotonic() - started < 2
    assert classify(caught.value).name == "cannot_connect"
    proxy.restore()


def test_an_attempt_that_was_given_up_is_ended(database_url: str, postgres: ThrowawayPostgres) -> None:
    """By hand, not by the garbage collector: a server that was frozen would make a session of each when it goes on."""
    postgres.freeze()
    gc.disable()
    try:
        for _ in range(2):
            with pytest.raises(psycopg.OperationalError):
                ResilientConnection.connect(database_url, connect_timeout=2)
        probe = HealthProbe(lambda: {"conninfo": database_url})
        assert not probe.check(timeout_seconds=3).healthy
        postgres.thaw()
        wait_until(lambda: postgres.backends(database_url.rpartition("/")[2]) == 0, what="an end of all sessions")
    finally:
        gc.enable()
