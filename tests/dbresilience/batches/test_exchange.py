"""exchange.py: what is said of each statement, whatever happens on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.pq import DiagnosticField, ExecStatus

from dbresilience.exchange import exchange
from tests.support.postgres import ThrowawayPostgres, wait_until


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def answers_to(connection: psycopg.Connection[Any], *texts: bytes) -> tuple[list[Any], list[float]]:
    """All answers, as far as they came, and how long each took."""
    answers: list[Any] = []
    durations: list[float] = []
    numbers = range(len(texts))
    try:
        connection.wait(
            exchange(
                connection.pgconn, list(texts), timed=numbers, flushed=numbers, answers=answers, durations=durations
            )
        )
    except psycopg.OperationalError:
        connection.close()
    return answers, durations


def test_each_answer_is_that_of_its_statement(connection: psycopg.Connection[Any]) -> None:
    answers, durations = answers_to(connection, b"SELECT 1", b"SET work_mem = '4MB'", b"SELECT 'two' WHERE false")
    assert [answer.command_status for answer in answers] == [b"SELECT 1", b"SET", b"SELECT 0"]
    assert len(durations) == 3
    assert connection.execute("SELECT 'usable'").fetchone() == ("usable",)


def test_what_comes_after_an_error_is_not_executed(connection: psycopg.Connection[Any]) -> None:
    answers, _ = answers_to(connection, b"SELECT 1", b"SELECT 1 / 0", b"SELECT 3")
    statuses = [ExecStatus.TUPLES_OK, ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED]
    assert [answer.status for answer in answers] == statuses
    assert connection.execute("SELECT 'usable'").fetchone() == ("usable",)


def test_more_than_the_socket_holds_is_sent_while_answers_come(connection: psycopg.Connection[Any]) -> None:
    """Neither side may wait for the other to read."""
    texts = [b"SELECT '%s', %d" % (b"x" * 90_000, number) for number in range(300)]
    answers, _ = answers_to(connection, *texts)
    assert [int(answer.get_value(0, 1)) for answer in answers] == list(range(300))


def test_a_statement_larger_than_the_socket_holds_arrives(connection: psycopg.Connection[Any]) -> None:
    """The server says nothing before it has all of it."""
    (answer,), _ = answers_to(connection, b"SELECT length('%s')" % (b"x" * 30_000_000))
    assert answer.get_value(0, 0) == b"30000000"


@pytest.mark.parametrize("size", [10, 10_000])
def test_the_last_words_of_a_session_are_heard(
    connection: psycopg.Connection[Any], postgres: ThrowawayPostgres, size: int
) -> None:
    """They lie in the socket before anything is sent, and are read while it is."""
    pid = connection.info.backend_pid
    postgres.execute(f"SELECT pg_terminate_backend({pid})")
    wait_until(lambda: postgres.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}") == [])
    answers, _ = answers_to(connection, b"SELECT '%s'" % (b"x" * size), b"SELECT 2")
    assert answers[0].error_field(DiagnosticField.SQLSTATE) == b"57P01"
