"""What comes back to the pool: nothing of one holder reaches the next, and no slot is lost."""

from __future__ import annotations

import gc
import select
import threading
import time
from contextlib import suppress

import psycopg
import pytest
from django.db import InternalError, OperationalError, connections, transaction
from django.test import override_settings

from dbresilience import classify, no_retries, signals
from dbresilience.base import DatabaseWrapper
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import SENT, Proxy

from .conftest import MakeWrapper, in_thread, pid_of, works


@pytest.fixture
def one(make_wrapper: MakeWrapper) -> DatabaseWrapper:
    wrapper = make_wrapper(pool={"max_size": 1})
    run(wrapper, "CREATE TABLE kept (n int)")
    return wrapper


def run(wrapper: DatabaseWrapper, query: str) -> list[tuple[object, ...]]:
    with wrapper.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall() if cursor.description else []


def test_a_transaction_begun_by_hand_ends_with_its_holder(one: DatabaseWrapper) -> None:
    """The next one's writes are its own."""
    run(one, "BEGIN")
    run(one, "INSERT INTO kept VALUES (1)")
    one.close()
    in_thread(lambda: run(connections[one.alias], "INSERT INTO kept VALUES (2)")).join()  # type: ignore[arg-type]
    assert run(one, "SELECT n FROM kept") == [(2,)]


def test_an_evicted_connection_says_nothing_about_its_siblings(one: DatabaseWrapper) -> None:
    """One bug of the server closes one connection."""
    closed: list[object] = []

    def receiver(sender: str, **details: object) -> None:
        closed.append(details["reason"])

    signals.connection_closed.connect(receiver)
    try:
        with pytest.raises(InternalError):
            run(one, "DO $$ BEGIN RAISE EXCEPTION 'bug' USING ERRCODE = 'XX000'; END $$")
        assert run(one, "SELECT 1") == [(1,)]
    finally:
        signals.connection_closed.disconnect(receiver)
    assert closed == ["server_bug (XX000)"]
    assert one.resources.snapshot().generation == 1


@pytest.mark.timed
def test_a_session_that_the_server_ended_for_idleness_is_replaced_at_once(make_wrapper: MakeWrapper) -> None:
    """Within the second in which a connection is a spare."""
    wrapper = make_wrapper(options="-c idle_session_timeout=300ms")
    pid_of(wrapper)
    time.sleep(0.6)
    started = time.monotonic()
    pid_of(wrapper)
    assert time.monotonic() - started < 1
    assert wrapper.resources.snapshot().generation == 1


def test_a_busy_connection_grows_old_too(make_wrapper: MakeWrapper) -> None:
    """max_lifetime holds for the one that never rests."""
    wrapper = make_wrapper(pool={"max_size": 3, "max_lifetime": 1.5})
    first, ends = pid_of(wrapper), time.monotonic() + 10
    while pid_of(wrapper) == first:
        assert time.monotonic() < ends
    assert wrapper.resources.snapshot().size <= 3


def test_a_lease_ends_once(one: DatabaseWrapper) -> None:
    """Releasing a former lease again does not end the present one."""
    pool = one.resources.pool
    assert pool is not None
    first = pool.acquire(one)
    pool.release(first)
    second = pool.acquire(one)
    pool.release(first)
    assert pool.snapshot().in_use == 1
    pool.release(second)
    assert pool.snapshot().in_use == 0


def test_the_garbage_collector_does_not_end_a_transaction(one: DatabaseWrapper) -> None:
    """A forgotten cursor in a reference cycle is collected just when atomic() begins."""

    def forget() -> None:
        cursor = one.cursor()
        cursor.execute("SELECT 1")
        cycle: list[object] = [cursor]
        cycle.append(cycle)

    forget()
    assert one.resources.snapshot().in_use == 1
    original = one._set_autocommit

    def collect_first(autocommit: bool) -> None:
        gc.collect()
        original(autocommit)

    one._set_autocommit = collect_first  # type: ignore[method-assign]
    with suppress(ZeroDivisionError), transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (1)")
        raise ZeroDivisionError
    one._set_autocommit = original  # type: ignore[method-assign]
    assert run(one, "SELECT n FROM kept") == []


def test_a_write_outside_a_transaction_that_was_not_answered_is_of_unknown_outcome(
    one: DatabaseWrapper, make_wrapper: MakeWrapper
) -> None:
    """Stored or not: nobody can say. A read may simply be asked again."""
    outcomes: dict[str, str] = {}
    other = make_wrapper()
    other.inc_thread_sharing()
    for query in ("UPDATE kept SET n = 2 WHERE pg_sleep(20) IS NULL", "SELECT pg_sleep(20)"):
        run(other, "INSERT INTO kept VALUES (1)")

        def end_it() -> None:
            wait_until(
                lambda: run(
                    other,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND state = 'active' AND query ~ 'pg_sleep'",
                )
            )

        thread = in_thread(end_it)
        with no_retries(), pytest.raises(OperationalError) as caught:
            run(one, query)
        thread.join()
        outcomes[query.split()[0]] = classify(caught.value).name
    assert outcomes == {"UPDATE": "outcome_unknown", "SELECT": "shutting_down"}


def test_an_error_in_answer_to_commit_is_an_answer(one: DatabaseWrapper) -> None:
    """It was rolled back, and the server is well."""
    run(
        one,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE EXCEPTION ''no'' USING ERRCODE = ''XX000''; END';"
        "CREATE CONSTRAINT TRIGGER refuses AFTER INSERT ON kept"
        " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    with pytest.raises(InternalError) as caught, transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (1)")
    assert classify(caught.value).name == "server_bug"
    assert one.resources.snapshot().generation == 1


def test_a_notify_handler_that_raises_costs_no_connection(one: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """It is heard while the connection is looked at, and not within a query, which would fail of it."""
    heard: list[str] = []

    def handler(notify: psycopg.Notify) -> None:
        heard.append(notify.payload)
        raise RuntimeError("mine")

    with one.pinned():
        assert one.connection is not None
        one.connection.add_notify_handler(handler)
        one.connection.needs_lease = False
        one.connection.lease, lease = None, one.connection.lease  # what LISTEN leaves would be cleaned
        one.connection.execute("LISTEN news")
        one.connection.lease = lease
        socket = one.connection.pgconn.socket
    mine = pid_of(one)
    postgres.execute("NOTIFY news, 'read all about it'", database=one.settings_dict["NAME"])
    assert select.select([socket], [], [], 10)[0]
    assert pid_of(one) == mine
    assert heard == ["read all about it"]
    assert one.resources.snapshot().in_use == 0


def test_who_listened_hears_nothing_of_the_next(one: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    heard: dict[str, list[str]] = {"first": [], "second": []}

    def listen(name: str) -> int:
        with one.pinned():
            run(one, f"LISTEN {name}")
            assert one.connection is not None
            one.connection.add_notify_handler(lambda notify: heard[name].append(notify.payload))
            run(one, f"NOTIFY {name}, 'for {name}'")
            run(one, "SELECT 1")
            pid: int = one.connection.info.backend_pid
        one.close()
        return pid

    assert listen("first") == listen("second")
    assert heard == {"first": ["for first"], "second": ["for second"]}


def test_reset_is_never_skipped(make_wrapper: MakeWrapper) -> None:
    """Whoever takes a connection finds it as `reset` left it, also when two threads take turns."""
    dirty: set[int] = set()
    found: list[int] = []

    def reset(connection: psycopg.Connection[object]) -> None:
        dirty.discard(connection.pgconn.backend_pid)

    wrapper = make_wrapper(pool={"max_size": 1, "reset": reset})
    ends = time.monotonic() + 1

    def use() -> None:
        mine = connections[wrapper.alias]
        while time.monotonic() < ends:
            pid = pid_of(mine)  # type: ignore[arg-type]
            with mine.pinned():  # type: ignore[attr-defined]
                if pid in dirty:
                    found.append(pid)
                dirty.add(pid)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not found


@override_settings(USE_TZ=True, TIME_ZONE="UTC")
def test_a_session_follows_use_tz(one: DatabaseWrapper) -> None:
    """Also one that has had no cursor yet."""
    with override_settings(USE_TZ=False):
        one.__dict__.pop("timezone", None)
        one.__dict__.pop("timezone_name", None)
        assert run(one, "SELECT now()")[0][0].tzinfo is None  # type: ignore[attr-defined]


def test_an_orphan_serves_those_who_wait(make_wrapper: MakeWrapper) -> None:
    """A thread that ends while holding is noticed by the time the wait is over."""
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 1})
    has_it = threading.Event()

    def hold_and_end() -> None:
        mine = connections[wrapper.alias]
        mine.set_autocommit(False)
        pid_of(mine)  # type: ignore[arg-type]
        has_it.set()
        time.sleep(0.3)

    thread = in_thread(hold_and_end)
    has_it.wait(timeout=5)
    assert pid_of(wrapper)
    thread.join()


def test_a_cursor_factory_of_ones_own_gives_the_connection_back(make_wrapper: MakeWrapper) -> None:
    """The lease ends with its cursors, too."""

    class Mine(psycopg.ClientCursor[tuple[object, ...]]):
        pass

    wrapper = make_wrapper(cursor_factory=Mine)
    with wrapper.cursor() as cursor:
        assert isinstance(cursor.cursor, Mine)
    assert wrapper.resources.snapshot().in_use == 0


def test_an_error_in_a_copy_counts(one: DatabaseWrapper) -> None:
    """25006 in a transaction that the application made read-only is its own, for COPY as for INSERT."""
    with transaction.atomic(using=one.alias):
        run(one, "SET TRANSACTION READ ONLY")
        with (
            pytest.raises((InternalError, psycopg.Error)) as caught,
            one.cursor() as cursor,
            cursor.copy("COPY kept FROM STDIN") as copy,
        ):
            copy.write("1\n")
        one.set_rollback(True)
    assert classify(caught.value).status is None


def test_a_session_that_is_lost_while_it_is_cleaned_raises_nothing(
    proxy: Proxy, make_wrapper: MakeWrapper, database_url: str
) -> None:
    """To clean it is no write that anybody could miss; its slot is free again."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 1, "timeout": 2})
    with wrapper.cursor() as cursor:
        cursor.execute("SET work_mem = '8MB'")
    proxy.cut_when(lambda message: (message.sql or "").startswith("DISCARD"), after=SENT)
    wrapper.close()
    assert works(wrapper)
