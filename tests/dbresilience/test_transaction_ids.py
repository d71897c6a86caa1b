"""commits.py: the id of a transaction, learnt with its first change, seen by nobody."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import ProgrammingError, transaction
from django.test.utils import CaptureQueriesContext

from dbresilience.base import DatabaseWrapper
from dbresilience.commits import TransactionId
from tests.support.proxy import Proxy

from .conftest import run


def test_an_id_belongs_to_one_transaction_only(one: DatabaseWrapper, proxy: Proxy, postgres: Any) -> None:
    """Within pinned() the lease stays and its transactions change."""
    seen: list[TransactionId | None] = []

    def note() -> None:
        assert one._lease is not None
        seen.append(one._lease.transaction_id)

    with one.pinned():
        with suppress(ZeroDivisionError), transaction.atomic(using=one.alias):
            run(one, "INSERT INTO kept VALUES (1)")
            note()
            raise ZeroDivisionError
        note()
        with transaction.atomic(using=one.alias):
            run(one, "INSERT INTO kept VALUES (2)")
            note()
        note()
    assert seen[0] is not None
    assert seen[2] is not None
    assert seen[0].xid != seen[2].xid
    assert seen[1::2] == [None, None]


def test_the_id_is_asked_for_until_there_is_one(one: DatabaseWrapper) -> None:
    """A statement that changes nothing gets none."""
    with transaction.atomic(using=one.alias):
        run(one, "UPDATE kept SET n = 5 WHERE n = 4")
        assert one._lease is not None
        assert one._lease.transaction_id is None
        run(one, "INSERT INTO kept VALUES (1)")
        first = one._lease.transaction_id
        assert first is not None
        run(one, "INSERT INTO kept VALUES (2)")
        assert one._lease.transaction_id is first


def test_nobody_sees_the_second_statement(one: DatabaseWrapper, proxy: Proxy) -> None:
    """Counts, rows, descriptions, results, logs: all as if it were not there; and no round trip more."""
    before = proxy.round_trips
    with transaction.atomic(using=one.alias), one.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1), (2) RETURNING n -- a comment")
        assert cursor.rowcount == 2
        assert [column.name for column in cursor.description] == ["n"]
        assert cursor.statusmessage == "INSERT 0 2"
        assert cursor.fetchall() == [(1,), (2,)]
        assert cursor.nextset() is None
        assert len(list(cursor.cursor.results())) == 1
        with pytest.raises(IndexError):
            cursor.cursor.set_result(1)
        assert one._lease is not None
        assert one._lease.transaction_id is not None
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.nextset() is True
    assert proxy.round_trips - before == 4  # BEGIN, INSERT, SELECT, COMMIT
    one.force_debug_cursor = True
    with CaptureQueriesContext(one) as captured, transaction.atomic(using=one.alias):
        run(one, "DELETE FROM kept WHERE n = %s;", [2])
    assert [query["sql"] for query in captured.captured_queries if "kept" in query["sql"]] == [
        "DELETE FROM kept WHERE n = 2;"
    ]
    one.force_debug_cursor = False


def test_an_error_is_shown_as_ever(one: DatabaseWrapper) -> None:
    """Its text and its place in the statement are the user's own."""
    with pytest.raises(ProgrammingError) as caught, transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (nothing)")
    assert "pg_current" not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedColumn)
    assert caught.value.__cause__.diag.statement_position == "26"
