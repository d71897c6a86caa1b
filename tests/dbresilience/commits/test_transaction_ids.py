"""transaction_ids.py: the id of a transaction, learnt with its first change, seen by nobody."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, OperationalError, ProgrammingError, transaction
from django.test.utils import CaptureQueriesContext

from dbresilience import CommitOutcomeUnknown, classify, pipeline
from dbresilience.base import DatabaseWrapper
from dbresilience.transaction_ids import TransactionId
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, Proxy

from .conftest import insert, stored


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


def test_a_commit_by_hand_ends_what_the_id_is_for(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """The transaction after it has an id of its own; else what is lost would pass for what was stored before."""
    one.set_autocommit(False)
    run(one, "INSERT INTO kept VALUES (1)")
    run(one, "COMMIT")
    run(one, "INSERT INTO kept VALUES (2)")
    proxy.cut_when(is_commit, after=SEEN)
    with pytest.raises(OperationalError) as caught:
        one.commit()
    assert classify(caught.value).name == "not_committed"
    assert stored(postgres, database_url) == [1]
    one.close()
    one.set_autocommit(True)


def test_a_commit_that_was_refused_ends_it_too(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """Also where nobody calls rollback(): what is stored next must not pass for what was undone."""
    run(one, "ALTER TABLE kept ADD UNIQUE (n) DEFERRABLE INITIALLY DEFERRED, DROP CONSTRAINT kept_pkey")
    one.set_autocommit(False)
    run(one, "INSERT INTO kept VALUES (1), (1)")
    with pytest.raises(IntegrityError):
        one.commit()
    run(one, "INSERT INTO kept VALUES (2)")
    proxy.cut_when(is_commit, after=ANSWERED)
    one.commit()
    assert stored(postgres, database_url) == [2]
    one.close()
    one.set_autocommit(True)


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
        if hasattr(cursor.cursor, "set_result"):  # psycopg 3.3
            assert len(list(cursor.cursor.results())) == 1
            with pytest.raises(IndexError):
                cursor.cursor.set_result(1)
        assert one._lease is not None
        assert one._lease.transaction_id is not None
        cursor.execute("SELECT 1; SELECT 2")
        assert cursor.nextset() is True
    assert proxy.round_trips - before == 3  # BEGIN with INSERT, SELECT, COMMIT
    one.force_debug_cursor = True
    with CaptureQueriesContext(one) as captured, transaction.atomic(using=one.alias):
        run(one, "DELETE FROM kept WHERE n = %s", [2])
        run(one, "INSERT INTO kept VALUES (3)")
    assert [query["sql"] for query in captured.captured_queries if "kept" in query["sql"]] == [
        "DELETE FROM kept WHERE n = 2",
        "INSERT INTO kept VALUES (3)",
    ]
    one.force_debug_cursor = False


def test_an_error_is_shown_as_ever(one: DatabaseWrapper) -> None:
    """Its text and its place in the statement are the user's own."""
    with pytest.raises(ProgrammingError) as caught, transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (nothing)")
    assert "pg_current" not in str(caught.value)
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedColumn)
    assert caught.value.__cause__.diag.statement_position == "26"


@pytest.mark.parametrize("block", [transaction.atomic, pipeline])
def test_a_question_that_is_refused_undoes_nothing_silently(
    one: DatabaseWrapper, postgres: ThrowawayPostgres, database_url: str, block: Any
) -> None:
    """Within the transaction it has another role than the one that was asked when it was connected."""
    database = database_url.rpartition("/")[2]
    postgres.execute("CREATE ROLE mortal", database=database)
    postgres.execute("REVOKE EXECUTE ON FUNCTION pg_catalog.pg_current_wal_insert_lsn() FROM PUBLIC", database=database)
    run(one, "GRANT ALL ON kept TO mortal")
    hooks: list[int] = []
    try:
        with pytest.raises(ProgrammingError, match="pg_current_wal_insert_lsn") as caught, block(using=one.alias):
            one.on_commit(lambda: hooks.append(1))
            for statement in ("SET LOCAL ROLE mortal", "INSERT INTO kept VALUES (1)"):
                with one.cursor() as cursor:
                    cursor.execute(statement)
        assert "commit_lookup" in "".join(caught.value.__cause__.__notes__)  # type: ignore[union-attr]  # psycopg's
        assert hooks == []
        assert run(one, "SELECT n FROM kept") == []
    finally:
        postgres.execute("DROP OWNED BY mortal; DROP ROLE mortal", database=database)


@pytest.mark.parametrize("function", ["pg_last_wal_replay_lsn", "pg_current_wal_insert_lsn", "pg_control_system"])
def test_a_server_that_does_not_tell_stores_all_the_same(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str, proxy: Proxy, function: str,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Within the transaction the question would be an error, and undo it; so it is asked before, and said once."""
    database = database_url.rpartition("/")[2]
    postgres.execute("CREATE ROLE plain LOGIN", database=database)
    postgres.execute(f"REVOKE EXECUTE ON FUNCTION pg_catalog.{function}() FROM PUBLIC", database=database)
    postgres.execute("CREATE TABLE kept (n int); GRANT ALL ON kept TO plain", database=database)
    wrapper = make_wrapper(url=proxy.url(database_url).replace("postgres@", "plain@"))
    wrapper.settings_dict["USER"] = "plain"
    try:
        insert(wrapper, 1)
        wrapper.resources.recycle()
        insert(wrapper, 2)
        proxy.cut_when(is_commit, after=ANSWERED)
        with pytest.raises(CommitOutcomeUnknown, match="id is not known"):
            insert(wrapper, 3)
        assert stored(postgres, database_url) == [1, 2, 3]
        told = [record.getMessage() for record in caplog.records if "cannot look up COMMITs" in record.getMessage()]
        assert len(told) == 1
        assert function in told[0]
    finally:
        wrapper.close()
        wrapper.resources.close()
        postgres.execute("DROP OWNED BY plain; DROP ROLE plain", database=database)
