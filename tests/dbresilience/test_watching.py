"""watching.py and round_trips.py: what is put down of a request's leases is what passed on the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connections, transaction
from psycopg import sql

from dbresilience.base import DatabaseWrapper
from dbresilience.measures import CLOSE, LOST, PINNED, STATEMENT, TRANSACTION
from dbresilience.watching import HELD, Watch, WatchedLease
from tests.dbresilience.watched_uses import (
    copy_in,
    copy_out,
    gathered,
    in_pipeline,
    in_transaction,
    large,
    many,
    named_cursor,
    of_psycopg,
    rolled_back,
    session_state,
    unreadable,
    with_savepoint,
)
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import Message
from tests.support.proxy import SENT, Proxy

from .conftest import MakeWrapper, in_thread, run

Use = Callable[[DatabaseWrapper], object]


@pytest.fixture
def proxied(proxy: Proxy, make_wrapper: MakeWrapper, database_url: str) -> DatabaseWrapper:
    wrapper = make_wrapper(url=proxy.url(database_url))
    run(wrapper, "SELECT 1")
    return wrapper


def watched(work: Callable[[], object]) -> list[WatchedLease]:
    watch = Watch()
    with watch.watching():
        work()
    return watch.leases


@pytest.mark.parametrize(
    "use",
    [
        lambda wrapper: run(wrapper, "SELECT 1"),
        in_transaction,
        with_savepoint,
        rolled_back,
        unreadable,
        in_pipeline,
        gathered,
        named_cursor,
        many,
        copy_out,
        copy_in,
        large,
        session_state,
        of_psycopg,
    ],
)
def test_round_trips_are_those_of_the_wire(use: Use, proxied: DatabaseWrapper, proxy: Proxy) -> None:
    """As many as a proxy sees, whatever a statement takes or joins."""
    before = proxy.round_trips
    leases = watched(lambda: use(proxied))
    assert leases
    assert sum(lease.round_trips for lease in leases) == proxy.round_trips - before


def test_so_they_are_with_server_side_binding(proxy: Proxy, make_wrapper: MakeWrapper, database_url: str) -> None:
    """Its transactions begin by themselves, and its statements are prepared."""
    wrapper = make_wrapper(url=proxy.url(database_url), server_side_binding=True, prepare_threshold=1)
    run(wrapper, "SELECT 1")
    before = proxy.round_trips
    leases = watched(lambda: (in_transaction(wrapper), named_cursor(wrapper), run(wrapper, "SELECT %s", [3])))
    assert sum(lease.round_trips for lease in leases) == proxy.round_trips - before


def test_what_travels_together_has_one_number(proxied: DatabaseWrapper) -> None:
    """BEGIN, the statements and COMMIT of a pipeline."""
    (lease,) = watched(lambda: in_pipeline(proxied))
    assert lease.round_trips == 1
    assert [statement.round_trip for statement in lease.statements] == [1] * 5
    (lease,) = watched(lambda: in_transaction(proxied))
    assert [statement.round_trip for statement in lease.statements] == [1, 2]
    assert lease.round_trips == 3


def test_a_function_of_gather_is_one_statement(proxied: DatabaseWrapper) -> None:
    """Although it is called twice."""
    (lease,) = watched(lambda: gathered(proxied))
    assert len(lease.statements) == 3
    assert lease.round_trips == 1


def test_texts_hold_no_parameters(proxied: DatabaseWrapper) -> None:
    """Neither of a string nor of a composed statement."""
    composed = sql.SQL("SELECT {}").format(sql.Literal("secret"))
    leases = watched(lambda: (run(proxied, "SELECT\n  %s", ["secret"]), run(proxied, composed)))  # type: ignore[arg-type]
    assert [lease.statements[0].sql for lease in leases] == ["SELECT %s", "SELECT %s"]


@pytest.mark.parametrize(
    ("use", "ended"),
    [
        (lambda wrapper: run(wrapper, "SELECT 1"), STATEMENT),
        (in_transaction, TRANSACTION),
        (in_pipeline, TRANSACTION),
        (of_psycopg, PINNED),
        (session_state, CLOSE),
        (lambda wrapper: run(wrapper, "SET work_mem = '8MB'"), HELD),
    ],
)
def test_why_a_connection_went_back(use: Use, ended: str, proxied: DatabaseWrapper) -> None:
    (lease,) = watched(lambda: use(proxied))
    assert lease.ended == ended


def test_an_open_cursor_lasts_as_long_as_the_request(proxied: DatabaseWrapper) -> None:
    def work() -> None:
        cursor = proxied.cursor()
        cursor.execute("SELECT 1")
        proxied.close()

    (lease,) = watched(work)
    assert lease.ended == CLOSE


def test_a_lost_connection(proxied: DatabaseWrapper, proxy: Proxy) -> None:
    """The read is sent again: two leases, and what was sent in vain counts."""

    def is_read(message: Message) -> bool:
        return "generate_series" in (message.sql or "")

    proxy.cut_when(is_read, after=SENT)
    lost, second = watched(lambda: run(proxied, "SELECT generate_series(1, 2)"))
    assert (lost.ended, lost.round_trips, lost.statements) == (LOST, 1, [])
    assert (second.ended, second.round_trips, len(second.statements)) == (STATEMENT, 1, 1)


@pytest.mark.timed
def test_the_time_for_which_nothing_was_asked(proxied: DatabaseWrapper) -> None:
    """Between two statements of a transaction, with both places."""

    def work() -> None:
        with transaction.atomic(using=proxied.alias):
            run(proxied, "SELECT pg_sleep(0.1)")
            time.sleep(0.2)
            in_another_place(proxied)

    (lease,) = watched(work)
    idle = lease.longest_idle
    assert 0.2 <= idle.seconds < 0.3
    assert idle.after.endswith("in run")
    assert idle.before is not None
    assert idle.before.endswith("in in_another_place")
    assert 0.1 <= lease.busy_seconds < lease.held_seconds - 0.2


def in_another_place(wrapper: DatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 3")


@pytest.mark.timed
def test_waits_and_failures(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 5})

    def hold() -> None:
        other = connections[wrapper.alias]
        with transaction.atomic(using=wrapper.alias), other.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.3)")
        other.close()

    run(wrapper, "SELECT 1")
    thread = in_thread(hold)
    time.sleep(0.1)

    def work() -> None:
        with pytest.raises(DatabaseError):
            run(wrapper, "SELECT 1/0")

    (lease,) = watched(work)
    thread.join()
    assert 0.1 < lease.wait_seconds < 0.4
    assert lease.statements[0].error == "22012"


def test_what_nobody_watches_is_not_put_down(proxied: DatabaseWrapper) -> None:
    """Also on a connection that was watched before, and in a thread that inherits nothing."""
    leases = watched(lambda: run(proxied, "SELECT 1"))
    trips = leases[0].round_trips
    run(proxied, "SELECT 1")
    assert len(leases) == 1
    assert leases[0].round_trips == trips

    def work() -> None:
        def elsewhere() -> None:
            other: Any = connections[proxied.alias]
            run(other, "SELECT 1")
            other.close()

        in_thread(elsewhere).join()

    assert watched(work) == []


def test_measures_go_on(make_wrapper: MakeWrapper) -> None:
    """Whoever shows durations has those of watched leases, too."""
    from dbresilience import measures

    heard: list[measures.Drained] = []
    measures.subscribe("test_watching", heard.append)
    try:
        wrapper = make_wrapper()
        watched(lambda: run(wrapper, "SELECT 1"))
        measures.drain()
    finally:
        measures.unsubscribe("test_watching")
    (drained,) = [each for each in heard if each.alias == wrapper.alias]
    assert len(drained.holds) == 1
    assert drained.statements[-1][0] == "SELECT 1"


def test_the_server_is_killed_in_mid_transaction(proxied: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """What was going on ends as lost, and nothing of it is held."""

    def work() -> None:
        with pytest.raises((DatabaseError, psycopg.Error)), transaction.atomic(using=proxied.alias):
            run(proxied, "SELECT 1")
            postgres.kill()
            run(proxied, "SELECT 2")

    leases = watched(work)
    assert leases[0].ended == LOST
    assert all(lease.ended != HELD for lease in leases)
