"""batches.py: the connection is lost, with statements that wait, or while it is read."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from dbresilience import CommitOutcomeUnknown, classify, deadline, gather, no_retries, pipeline, retry, signals
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.rows import create, end_session, names, owners, run_waiting
from tests.dbresilience.batches.tables import Owner
from tests.dbresilience.conftest import in_thread, pid_of, run
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy

pytestmark = pytest.mark.usefixtures("nothing_is_out")


# Before anything was sent


def test_what_waits_is_not_forgotten_with_a_connection_that_is_exchanged(
    far: DatabaseWrapper, postgres: ThrowawayPostgres
) -> None:
    """A dead connection may be exchanged before a statement, but not when another one waits on it."""

    @retry(using=far.alias)
    def work() -> None:
        with pipeline(using=far.alias):
            create(far, 1)
            if not ended:
                ended.append(far.connection.info.backend_pid)
                end_session(postgres, ended[0])
            create(far, 2)

    ended: list[int] = []
    work()
    assert names(far) == ["owner 1", "owner 2"]


def test_a_connection_that_died_before_the_first_statement_is_exchanged(
    far: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres
) -> None:
    with pipeline(using=far.alias):
        far.ensure_connection()
        end_session(postgres, far.connection.info.backend_pid)
        create(far, 1)
        before = proxy.round_trips
        create(far, 2)
        assert proxy.round_trips == before
    assert names(far) == ["owner 1", "owner 2"]


def test_what_waits_goes_with_a_connection_that_is_closed(far: DatabaseWrapper) -> None:
    """The next holder must not meet it."""
    with suppress(Exception), pipeline(using=far.alias):
        create(far, 1)
        far.close()
        far.inc_thread_sharing()
        thread = in_thread(lambda: _create_beside(far.alias))
        thread.join()
    assert names(far) == ["owner 2"]


def _create_beside(alias: str) -> None:
    with pipeline(using=alias):
        create(connections[alias], 2)
    connections[alias].close()


def test_the_end_of_a_block_does_not_end_that_of_another_holder(far: DatabaseWrapper) -> None:
    """The connection was closed within the block, and belongs to somebody else when that ends."""
    is_within, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with pipeline(using=far.alias):
            create(connections[far.alias], 2)
            is_within.set()
            may_end.wait(5)
        connections[far.alias].close()

    with suppress(Exception), pipeline(using=far.alias):
        create(far, 1)
        far.close()
        thread = in_thread(work)
        is_within.wait(5)
    may_end.set()
    thread.join()
    assert names(far) == ["owner 2"]


# Once more


def test_a_serialization_failure_goes_again(far: DatabaseWrapper) -> None:
    create(far, 1)
    runs: list[int] = []

    @retry(using=far.alias)
    @pipeline(using=far.alias)
    def work() -> None:
        run_waiting(far, "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        assert owners(far).get().points == len(runs)
        if not runs:
            runs.append(1)
            other = in_thread(lambda: _point_beside(far.alias))
            other.join()
        owners(far).update(points=7)

    far.inc_thread_sharing()
    work()
    assert owners(far).get().points == 7
    assert runs == [1]


def _point_beside(alias: str) -> None:
    Owner._default_manager.using(alias).update(points=1)
    connections[alias].close()


def test_a_deadlock_goes_again(far: DatabaseWrapper) -> None:
    create(far, 1)
    create(far, 2)
    far.inc_thread_sharing()
    barrier = threading.Barrier(2)
    attempts: list[int] = []

    def work(first: int, second: int) -> None:
        @retry(using=far.alias)
        def move() -> None:
            attempts.append(first)
            with pipeline(using=far.alias):
                wrapper = connections[far.alias]
                int(owners(wrapper).filter(name=f"owner {first}").update(points=first))
                with suppress(threading.BrokenBarrierError):
                    barrier.wait(1)
                owners(wrapper).filter(name=f"owner {second}").update(points=first)

        move()
        connections[far.alias].close()

    threads = [in_thread(lambda: work(1, 2)), in_thread(lambda: work(2, 1))]
    for thread in threads:
        thread.join()
    assert len(attempts) == 3
    assert len(set(owners(far).values_list("points", flat=True))) == 1


# Time


@pytest.mark.timed
def test_a_slow_statement_that_waits_has_the_deadline(far: DatabaseWrapper) -> None:
    started = time.monotonic()
    with pytest.raises(OperationalError) as caught, deadline(0.3), pipeline(using=far.alias):
        create(far, 1)
        run_waiting(far, "SELECT pg_sleep(0.9)")
    assert time.monotonic() - started < 0.8
    assert classify(caught.value).name == "timeout"
    assert names(far) == []


def test_an_inner_block_that_ran_out_of_time_is_undone_alone(far: DatabaseWrapper) -> None:
    with pipeline(using=far.alias):
        create(far, 1)
        with suppress(OperationalError), deadline(1.0), transaction.atomic(using=far.alias):
            create(far, 2)
            run_waiting(far, "SELECT pg_sleep(5)")
        create(far, 3)
    assert names(far) == ["owner 1", "owner 3"]


# gather()


def test_reads_of_idle_connections_that_died_go_again(far: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    create(far, 1)
    far.inc_thread_sharing()
    end_session(postgres, pid_of(far))
    assert gather(owners(far), owners(far).count, using=far.alias) == [[owners(far).get()], 1]


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
def test_reads_that_were_lost_go_again(far: DatabaseWrapper, proxy: Proxy, after: str) -> None:
    create(far, 1)
    repeated: list[Any] = []

    def receiver(**details: Any) -> None:
        repeated.append(details["classification"].name)

    signals.read_repeated.connect(receiver)
    cut = proxy.cut_when(lambda message: "COUNT" in message.sql, after=after)
    assert gather(owners(far), owners(far).count, using=far.alias)[1] == 1
    assert cut.happened.is_set()
    assert repeated == ["connection_lost"]


def test_reads_on_a_session_of_ones_own_do_not_go_again(far: DatabaseWrapper, proxy: Proxy) -> None:
    """Elsewhere what was set would not be so."""
    with far.cursor() as cursor:
        cursor.execute("SET search_path = public")
    proxy.cut_when(lambda message: "COUNT" in message.sql, after=SENT)
    with pytest.raises(OperationalError):
        gather(owners(far).count, using=far.alias)
    far.close()


def test_a_function_that_writes_and_was_lost_is_of_unknown_outcome(far: DatabaseWrapper, proxy: Proxy) -> None:
    proxy.cut_when(lambda message: "INSERT" in message.sql, after=ANSWERED)
    with pytest.raises(CommitOutcomeUnknown):
        gather(lambda: run(far, "INSERT INTO batches_note (text) VALUES ('x') RETURNING id"), using=far.alias)
    far.close()


def test_a_session_that_ends_in_a_batch_was_closed_for_that(far: DatabaseWrapper) -> None:
    """As one that ends in a statement by itself; whoever counts lost sessions counts these."""
    create(far, 1)
    reasons: list[str] = []

    def receiver(sender: str, reason: str, **details: object) -> None:
        reasons.append(reason)

    ends_it = "pg_terminate_backend(pg_backend_pid())"
    signals.connection_closed.connect(receiver)
    # A read that calls a function which may store something is one of unknown outcome, as by itself.
    expected = ["outcome_unknown (57P01)", "not_committed (57P01)"]
    try:
        for _ in range(3):  # the server's last words may be lost with the connection, though not each time
            reasons.clear()
            with no_retries(), suppress(OperationalError):
                gather(owners(far).extra(select={"ended": ends_it}), using=far.alias)
            with suppress(OperationalError), pipeline(using=far.alias), far.cursor() as cursor:
                cursor.execute(f"SELECT {ends_it}")
            if reasons == expected:
                break
    finally:
        signals.connection_closed.disconnect(receiver)
    assert reasons == expected
