"""repeating.py: a read whose connection was lost is asked again; what was never sent goes elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, DataError, InterfaceError, OperationalError, transaction
from django.test.utils import CaptureQueriesContext
from psycopg.rows import dict_row

from dbresilience import CommitOutcomeUnknown, DatabaseUnavailable, no_retries
from dbresilience.base import DatabaseWrapper
from dbresilience.session_state import is_plain_read
from tests.dbresilience.conftest import MakeWrapper, in_thread, run, works
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import Message
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy


def saying(words: str) -> Callable[[Message], bool]:
    return lambda message: words in message.sql


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
@pytest.mark.parametrize("options", [{}, {"server_side_binding": True}])
def test_a_read_is_asked_again(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, repeated: list[int], after: str, options: dict[str, Any]
) -> None:
    """Nobody notices: one query in the log, its rows, the connection given back, others of its age given up."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 1, "timeout": 3}, **options)
    proxy.cut_when(saying("41 + $1" if options else "41 + 1"), after=after)
    wrapper.force_debug_cursor = True
    with CaptureQueriesContext(wrapper) as captured:
        assert run(wrapper, "SELECT 41 + %s, now()", [1])[0][0] == 42
    assert len(captured) == 1
    assert repeated == [1]
    assert wrapper.resources.snapshot().in_use == 0


def test_attempts_are_counted(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """Three by default; then the error is told."""
    proxy.cut_when(saying("FROM kept"), after=SENT, times=2)
    assert run(one, "SELECT n FROM kept") == [(1,)]
    assert repeated == [1, 2]
    proxy.cut_when(saying("FROM kept"), after=SENT, times=3)
    with pytest.raises(OperationalError):
        run(one, "SELECT n FROM kept")
    assert repeated == [1, 2, 1, 2]
    assert run(one, "SELECT n FROM kept") == [(1,)]


def test_what_fails_anew_is_told(
    one: DatabaseWrapper, proxy: Proxy, repeated: list[int], postgres: ThrowawayPostgres
) -> None:
    """Also when attempts are left: the answer of the server, not that the connection was lost before."""
    name = one.settings_dict["NAME"]

    def spoil() -> None:
        postgres.execute("UPDATE kept SET n = 0", database=name)

    proxy.cut_when(saying("1 / n"), after=SENT, then=spoil)
    with pytest.raises(DataError, match="division by zero"):
        run(one, "SELECT 1 / n FROM kept")
    assert repeated == [1]
    assert one.resources.snapshot().in_use == 0


def test_one_attempt_is_off(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, repeated: list[int]) -> None:
    wrapper = make_wrapper(url=proxy.url(database_url), resilience={"retry_attempts": 1})
    proxy.cut_when(saying("41 + 1"), after=SENT)
    with pytest.raises(OperationalError):
        run(wrapper, "SELECT 41 + 1")
    assert repeated == []


def test_no_retries_is_off(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """One line in a test, as a decorator or a block."""
    proxy.cut_when(saying("FROM kept"), after=SENT)

    @no_retries()
    def look() -> None:
        run(one, "SELECT n FROM kept")

    with pytest.raises(OperationalError):
        look()
    assert repeated == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT n FROM kept",
        "select lower('x'), count(*) from kept where n in (1, 2) for update",
        "WITH one AS (SELECT n FROM kept) SELECT * FROM one",
        "(SELECT 1) UNION (SELECT 2)",
        "VALUES (1), (2);",
        "TABLE kept",
        "SELECT pg_catalog.now()",
        "SELECT /* route='/chat' */ n FROM kept",
        "/* app:shop */ SELECT n FROM kept",
        "-- why\nSELECT 1",
    ],
)
def test_what_is_a_plain_read(query: str) -> None:
    assert is_plain_read(query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pay(1)",
        "SELECT nextval('s')",
        "SELECT pg_notify('a', 'b')",
        "SELECT pg_terminate_backend(1)",
        "SELECT shop.now()",
        'SELECT "pay"(1)',
        "SELECT pay /* it */ (1)",
        "SELECT pay -- it\n (1)",
        "SELECT 1 INTO copied",
        "SELECT 1; DELETE FROM kept",
        "WITH gone AS (DELETE FROM kept RETURNING n) SELECT n FROM gone",
        "EXPLAIN ANALYZE DELETE FROM kept",
        "/* app:shop */ WITH u AS (UPDATE kept SET n = 1 RETURNING n) SELECT n FROM u",
        "(/* why */ WITH gone AS (DELETE FROM kept RETURNING n) SELECT n FROM gone)",
        "/* a */ INSERT INTO kept /* b */ SELECT 1",
        "/* a */ DELETE FROM kept /* b */ VALUES",
        "/* a /* b */ SELECT */ DELETE FROM kept",
        "INSERT INTO kept VALUES (1)",
        "CALL pay()",
        "SELECTION",
        "SELECT énow(1)",
        "",
    ],
)
def test_what_is_not(query: str) -> None:
    """What cannot be told is not repeated."""
    assert not is_plain_read(query)


@pytest.mark.parametrize("query", ["SELECT pay(1)", "INSERT INTO kept VALUES (2)", "SELECT nextval('counter')"])
def test_what_may_have_written_is_not_sent_twice(
    one: DatabaseWrapper, proxy: Proxy, repeated: list[int], query: str
) -> None:
    run(one, "CREATE SEQUENCE counter")
    run(one, "CREATE FUNCTION pay(n int) RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES (n); SELECT 1'")
    proxy.cut_when(saying(query), after=ANSWERED)
    with pytest.raises(CommitOutcomeUnknown):
        run(one, query)
    assert repeated == []
    assert proxy.statements.count(query) == 1


def test_within_a_transaction_nothing_is_repeated(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """Its earlier statements are undone, and the view has acted on their rows."""
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with pytest.raises(OperationalError), transaction.atomic(using=one.alias):
        run(one, "SELECT n FROM kept")
    assert repeated == []


@pytest.mark.parametrize("begin", ["BEGIN", "START TRANSACTION", "SELECT 1; BEGIN"])
def test_within_a_transaction_by_hand_nothing_is_repeated(
    one: DatabaseWrapper, proxy: Proxy, repeated: list[int], begin: str
) -> None:
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with pytest.raises(OperationalError), one.cursor() as cursor:
        cursor.execute(begin)
        cursor.execute("SELECT n FROM kept")
    assert repeated == []


def test_psycopgs_transactions_are_not_repeated(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    proxy.cut_when(saying("FROM kept"), after=SENT)
    one.ensure_connection()
    assert one.connection is not None
    with pytest.raises(Exception, match=r"closed|lost|reset"), one.connection.transaction():
        one.connection.execute("SELECT n FROM kept")
    one.close()
    assert repeated == []


def test_a_pinned_connection_is_not_exchanged(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """What was set on it would be missing."""
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with pytest.raises(DatabaseError), one.pinned():
        run(one, "SELECT n FROM kept")
    assert repeated == []


def test_session_state_is_not_lost_silently(
    one: DatabaseWrapper, proxy: Proxy, repeated: list[int], terminate: Callable[[DatabaseWrapper], None]
) -> None:
    """A search_path that is gone would read another table. Neither are repetitions, nor exchanges, nor both."""
    run(one, "SET search_path = public")
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with pytest.raises(OperationalError):
        run(one, "SELECT n FROM kept")
    one.close()
    run(one, "SET search_path = public")
    terminate(one)
    with pytest.raises(OperationalError):
        run(one, "SELECT n FROM kept")
    assert repeated == []


def test_another_open_cursor_forbids_it(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """It would go on with the former connection."""
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with one.cursor(), pytest.raises(OperationalError):
        run(one, "SELECT n FROM kept")
    assert repeated == []


def test_a_named_cursor_is_not_repeated(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """Its first rows may have been used."""
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with pytest.raises((OperationalError, InterfaceError)), one.chunked_cursor() as cursor:
        cursor.execute("SELECT n FROM kept")
    assert repeated == []


def test_a_read_that_took_long_is_not_repeated(one: DatabaseWrapper, postgres: Any, repeated: list[int]) -> None:
    """Whoever ended it meant it, or it is what breaks the server."""
    end_it = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"
    thread = in_thread(lambda: (time.sleep(1.3), postgres.execute(end_it)))
    with pytest.raises(OperationalError):
        run(one, "SELECT pg_sleep(20)")
    thread.join()
    assert repeated == []


def test_a_read_that_broke_the_server_is_not_repeated(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """The server is away and comes back: perhaps it was this very statement."""
    proxy.cut_when(saying("FROM kept"), after=SENT, then=lambda: proxy.deny("57P03", "starting up"))
    thread = in_thread(lambda: (wait_until(lambda: proxy.denial is not None), time.sleep(0.5), proxy.restore()))
    with pytest.raises(OperationalError):
        run(one, "SELECT n FROM kept")
    thread.join()
    assert repeated == []


def test_a_server_that_is_away_is_told(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """Asking again found nobody: that is the error, and the wrapper is usable afterwards."""
    proxy.cut_when(saying("FROM kept"), after=SENT, then=proxy.refuse)
    with pytest.raises(DatabaseUnavailable):
        run(one, "SELECT n FROM kept")
    assert repeated == []
    proxy.restore()
    wait_until(lambda: works(one))


def test_the_cursor_goes_on_as_it_was(one: DatabaseWrapper, proxy: Proxy, repeated: list[int]) -> None:
    """Its row factory, its time zone, its array size; and the next statement on it."""
    proxy.cut_when(saying("FROM kept"), after=SENT)
    with one.cursor() as cursor:
        inner = cursor.cursor
        inner.row_factory = dict_row
        inner.arraysize = 7
        cursor.execute("SELECT n, now() AS at FROM kept")
        (row,) = cursor.fetchall()
        assert row["n"] == 1
        assert row["at"].tzinfo is not None
        assert (cursor.cursor is inner, inner.arraysize) == (True, 7)
        cursor.execute("SELECT 2 AS n")
        assert cursor.fetchall() == [{"n": 2}]
    assert repeated == [1]
    assert one.resources.snapshot().in_use == 0
