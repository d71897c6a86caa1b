"""session_state.py: what one request leaves on its session, the next one never meets."""

from __future__ import annotations

import logging

import pytest
from django.db import connections, transaction
from django.db.backends.signals import connection_created

from dbresilience.base import DatabaseWrapper
from dbresilience.session_state import traits_of

from .conftest import MakeWrapper, pid_of


def ask(wrapper: DatabaseWrapper, query: str) -> object:
    with wrapper.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchone()[0] if cursor.description else None


@pytest.fixture
def one(make_wrapper: MakeWrapper) -> DatabaseWrapper:
    return make_wrapper(pool={"max_size": 1})


@pytest.mark.parametrize(
    ("leave", "look", "clean"),
    [
        ("SET search_path = pg_catalog", "SHOW search_path", '"$user", public'),
        ("SELECT set_config('app.tenant', 'a', false)", "SELECT current_setting('app.tenant', true)", ""),
        ("CREATE TEMP TABLE mine (n int)", "SELECT to_regclass('pg_temp.mine')", None),
        ("SELECT pg_advisory_lock(19)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", 0),
        ("LISTEN news", "SELECT count(*) FROM pg_listening_channels()", 0),
        ("SET ROLE pg_monitor", "SELECT current_user = session_user", True),
        ("PREPARE mine AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements", 0),
    ],
)
def test_the_next_request_finds_a_clean_session(one: DatabaseWrapper, leave: str, look: str, clean: object) -> None:
    """On the very same session, which also keeps what it was configured with."""
    timezone = ask(one, "SHOW TimeZone")
    ask(one, leave)
    pid = pid_of(one)
    one.close_if_unusable_or_obsolete()  # as at the end of a request
    assert one.resources.snapshot().in_use == 0
    assert pid_of(one) == pid
    assert ask(one, look) == clean
    assert ask(one, "SHOW TimeZone") == timezone


def test_it_lasts_for_the_request(one: DatabaseWrapper) -> None:
    """As with any other backend, so that code written for one goes on working."""
    ask(one, "SET search_path = pg_catalog")
    assert one.resources.snapshot().in_use == 1
    with transaction.atomic(using=one.alias):
        assert ask(one, "SHOW search_path") == "pg_catalog"
    assert ask(one, "SHOW search_path") == "pg_catalog"


def test_pinned_keeps_it_for_its_block(one: DatabaseWrapper) -> None:
    """No cleaning up by hand, no connection kept longer."""
    with one.pinned():
        ask(one, "SET search_path = pg_catalog")
        assert ask(one, "SHOW search_path") == "pg_catalog"
    assert one.resources.snapshot().in_use == 0
    assert ask(one, "SHOW search_path") == '"$user", public'


def test_a_cursor_from_before_keeps_what_was_pinned_until_it_is_closed(one: DatabaseWrapper) -> None:
    cursor = one.cursor()
    with one.pinned():
        ask(one, "SET search_path = pg_catalog")
    assert ask(one, "SHOW search_path") == "pg_catalog"
    cursor.close()
    assert one.resources.snapshot().in_use == 0
    assert ask(one, "SHOW search_path") == '"$user", public'


def test_what_is_local_to_a_transaction_costs_nothing(one: DatabaseWrapper) -> None:
    """Row-level security sets its tenant so."""
    with transaction.atomic(using=one.alias):
        ask(one, "SET LOCAL search_path = pg_catalog")
        ask(one, "SELECT set_config('app.tenant', 'a', true)")
        ask(one, "SELECT pg_advisory_xact_lock(19)")
        lease = one._lease
        assert lease is not None
        assert not lease.needs_reset
    assert one.resources.snapshot().in_use == 0


def test_what_connection_created_sets_belongs_to_the_connection(make_wrapper: MakeWrapper) -> None:
    """It stays, and is set anew after a session was cleaned."""
    wrapper = make_wrapper(pool={"max_size": 1})

    def receiver(connection: DatabaseWrapper, **kwargs: object) -> None:
        ask(connection, "SET lock_timeout = '7s'")

    connection_created.connect(receiver)
    try:
        assert ask(wrapper, "SHOW lock_timeout") == "7s"
        assert wrapper.resources.snapshot().in_use == 0
        with wrapper.pinned():
            ask(wrapper, "SET lock_timeout = '1s'")
        assert ask(wrapper, "SHOW lock_timeout") == "7s"
    finally:
        connection_created.disconnect(receiver)


def test_a_kept_connection_is_said_once_for_each_place(one: DatabaseWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """A line that tells where, not one for each request."""
    caplog.set_level(logging.INFO, "dbresilience.connections")
    for _ in range(3):
        with one.cursor() as cursor:
            cursor.execute("SET search_path = pg_catalog")
        one.close()
    said = [record.getMessage() for record in caplog.records if "session state" in record.getMessage()]
    assert len(said) == 1
    assert "test_session_state.py" in said[0]


def test_a_cursor_left_open_is_said_at_the_end_of_the_request(
    one: DatabaseWrapper, caplog: pytest.LogCaptureFixture
) -> None:
    """With the function that opened it, and the connection is back."""
    cursor = connections[one.alias].cursor()
    cursor.execute("SELECT 42")
    one.close_if_unusable_or_obsolete()
    assert one.resources.snapshot().in_use == 0
    (said,) = [record.getMessage() for record in caplog.records if "left open" in record.getMessage()]
    assert "test_a_cursor_left_open" in said
    assert "SELECT 42" in said


@pytest.mark.parametrize(
    "query",
    [
        'SELECT "a"."set" FROM "a"', "UPDATE a SET b = 1", "SET TRANSACTION READ ONLY", "SET LOCAL x = 1",
        "SET CONSTRAINTS ALL IMMEDIATE", "BEGIN; UPDATE x SET y = 1", "PREPARE TRANSACTION 'x'",
        "CREATE TABLE temporary (n int)", "SELECT pg_advisory_xact_lock(1)", "INSERT INTO temp_x VALUES (1)",
    ],
)  # fmt: skip
def test_ordinary_statements_leave_nothing(one: DatabaseWrapper, query: str) -> None:
    """What is recognised too eagerly would cost a round trip."""
    one.ensure_connection()
    assert one.connection is not None
    traits = traits_of(query, one.connection)
    assert traits is None or not traits.leaves_state


@pytest.mark.parametrize(
    "query",
    [
        b"SET x TO 1", "/* why */ set session x to 1", "SELECT 1; SET x TO 1", "-- why\nLISTEN a",
        "SELECT pg_try_advisory_lock(1)", "create or replace temporary view a as select 1",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT * INTO TEMP a FROM b",
        "SELECT set_config('a', %s, %s)",
    ],
)  # fmt: skip
def test_what_leaves_something_is_recognised(one: DatabaseWrapper, query: str | bytes) -> None:
    """However it is written."""
    one.ensure_connection()
    assert one.connection is not None
    traits = traits_of(query, one.connection)
    assert traits is not None
    assert traits.leaves_state


@pytest.mark.parametrize(
    "query",
    [
        "/* app:shop */ WITH u AS (UPDATE kept SET n = n + 1 RETURNING n) SELECT n FROM u",
        "/* a */ DELETE FROM kept /* b */ TABLE", "EXPLAIN ANALYSE DELETE FROM kept",
        "explain (analyse) delete from kept", "/* a /* b */ SELECT */ DELETE FROM kept",
    ],
)  # fmt: skip
def test_a_write_behind_a_comment_is_a_write(query: str) -> None:
    """Tools that tag statements put their comment in front."""
    traits = traits_of(query, None)  # type: ignore[arg-type]  # needed for psycopg's objects only
    assert traits is not None
    assert traits.writes


@pytest.mark.parametrize("query", ["/* app */ INSERT INTO kept VALUES (1)", "-- why\nDELETE FROM kept"])
def test_its_transaction_can_be_looked_up(query: str) -> None:
    """As without the comment."""
    traits = traits_of(query, None)  # type: ignore[arg-type]
    assert traits is not None
    assert traits.changes_rows


def test_a_transaction_by_hand_is_seen_behind_a_comment() -> None:
    traits = traits_of("/* app */ BEGIN", None)  # type: ignore[arg-type]
    assert traits is not None
    assert traits.is_by_hand
