"""commits.py: what became of a COMMIT that was never answered, with the wire cut at each step."""

from __future__ import annotations

import time
from contextlib import suppress

import psycopg
import pytest
from django.db import OperationalError, connections, transaction

from dbresilience import CommitOutcomeUnknown, classify, deadline
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import in_thread, pid_of, run
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy

from .conftest import insert, stored


@pytest.mark.parametrize("after", [SENT, ANSWERED])
@pytest.mark.parametrize("how", ["reset", "close"])
def test_a_commit_that_happened_is_reported_as_what_it_is(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str],
    after: str, how: str,
) -> None:  # fmt: skip
    """The answer got lost; the view goes on, its hooks run once, the next transaction has a living connection."""
    hooks: list[int] = []
    cut = proxy.cut_when(is_commit, after=after, how=how)
    insert(one, 1, lambda: hooks.append(1))
    assert cut.happened.is_set()
    assert looked_up == ["committed"]
    assert hooks == [1]
    insert(one, 2, lambda: hooks.append(2))
    assert hooks == [1, 2]
    assert stored(postgres, database_url) == [1, 2]
    assert one.resources.snapshot().in_use == 0


def test_a_commit_that_never_arrived_is_reported_as_not_committed(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """It was sent, so only the look-up can know. Its hooks do not run."""
    hooks: list[int] = []
    proxy.cut_when(is_commit, after=SEEN)
    with pytest.raises(OperationalError) as caught:
        insert(one, 1, lambda: hooks.append(1))
    assert not isinstance(caught.value, CommitOutcomeUnknown)
    assert (classify(caught.value).name, classify(caught.value).retry) == ("not_committed", "transaction")
    assert looked_up == ["not committed"]
    insert(one, 2, lambda: hooks.append(2))
    assert hooks == [2]
    assert stored(postgres, database_url) == [2]


@pytest.mark.timed
def test_a_session_that_commit_never_reached_is_ended(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """A network that swallows: the server knows of nothing and would keep the transaction, with its locks."""
    proxy.cut_when(is_commit, after=SEEN, how="swallow")
    started = time.monotonic()
    with pytest.raises(OperationalError) as caught, deadline(1.5):
        insert(one, 1)
    assert time.monotonic() - started < 1.5 + 0.5
    assert classify(caught.value).name == "outcome_unknown"
    # That cost all the request's time; with time left it is known.
    proxy.restore()
    run(one, "SELECT 1")
    with pytest.raises(OperationalError) as caught:
        _lose_the_wire_silently(one, proxy)
    assert classify(caught.value).name == "not_committed"
    assert looked_up == ["unknown the request's deadline has passed", "not committed"]
    ended = [record for record in caplog.records if getattr(record, "event", "") == "orphaned_session_ended"]
    assert len({vars(record)["backend_pid"] for record in ended}) == 1
    assert stored(postgres, database_url) == []
    query = "SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND query ~ 'VALUES .2'"
    assert stored(postgres, database_url, query) == [0]


def _lose_the_wire_silently(wrapper: DatabaseWrapper, proxy: Proxy) -> None:
    """The client's side is gone at COMMIT, and the server is not told."""
    (link,) = [link for link in proxy.links if link.client.transport is not None]

    def lose_the_client() -> None:
        link.ended = "reset"
        link.client.end("reset")

    try:
        with transaction.atomic(using=wrapper.alias):
            run(wrapper, "INSERT INTO kept VALUES (2)")
            proxy.cut_when(is_commit, after=SEEN, how="swallow", then=lose_the_client)
    finally:
        proxy.loop.call_soon_threadsafe(link.server.end, "close")


def test_a_commit_that_takes_its_time_is_waited_for(
    dozing: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """In progress is no outcome, and it still is when the connection is lost."""
    proxy.cut_when(is_commit, after=SENT)
    insert(dozing, 1)
    assert looked_up == ["committed"]
    assert stored(postgres, database_url) == [1]


def test_a_server_that_is_restarted_meanwhile_still_knows(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """A shutdown in good order loses nothing, so its successor's word is good."""
    proxy.cut_when(is_commit, after=ANSWERED, then=proxy.refuse)
    thread = in_thread(lambda: (time.sleep(0.3), postgres.restart(), proxy.restore()))
    insert(one, 1)
    thread.join()
    assert looked_up == ["committed"]
    assert stored(postgres, database_url) == [1]


def test_a_crash_that_lost_the_transaction_is_not_mistaken_for_its_commit(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """The log was not on disk, so the server gives the same id to another transaction, which commits."""
    name = database_url.rpartition("/")[2]
    # The log is written when it must be, and this server does not even wait then.
    postgres.execute("ALTER SYSTEM SET synchronous_commit = off")
    postgres.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
    postgres.execute("SELECT pg_reload_conf()")
    xids: list[int] = []

    def crash() -> None:
        proxy.refuse()

        def and_come_back() -> None:
            postgres.kill()
            postgres.start()
            # Whoever comes first gets the id again.
            while not xids or xids[-1] < lost:
                query = "INSERT INTO other VALUES (1) RETURNING pg_current_xact_id()::text::bigint"
                xids.append(int(str(postgres.execute(query, database=name)[0][0])))
            proxy.restore()

        in_thread(and_come_back)

    try:
        run(one, "CREATE TABLE other (n int)")
        postgres.execute("CHECKPOINT")
        with pytest.raises(CommitOutcomeUnknown, match="has recovered since"), transaction.atomic(using=one.alias):
            run(one, "INSERT INTO kept VALUES (1)")
            assert one._lease is not None
            assert one._lease.transaction_id is not None
            lost = int(one._lease.transaction_id.xid.decode())
            proxy.cut_when(is_commit, after=ANSWERED, then=crash)
        assert lost in xids
        assert looked_up == ["unknown the server has recovered since, and may have given the id to another transaction"]
        assert stored(postgres, database_url) == []
    finally:
        postgres.start()
        postgres.execute("ALTER SYSTEM RESET ALL")
        postgres.execute("SELECT pg_reload_conf()")


def test_a_crash_that_kept_the_transaction_is_believed(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """The server recovered beyond the place in its log where the transaction was, so the id is still its own."""
    run(one, "SET synchronous_commit = on")

    def crash() -> None:
        proxy.refuse()
        in_thread(lambda: (postgres.kill(), postgres.start(), proxy.restore()))

    proxy.cut_when(is_commit, after=ANSWERED, then=crash)
    insert(one, 1)
    assert looked_up == ["committed"]
    assert stored(postgres, database_url) == [1]


def test_an_outcome_that_nobody_can_tell_is_its_own_exception(
    one: DatabaseWrapper, proxy: Proxy, looked_up: list[str]
) -> None:
    """The server stays away: that is said, and not hidden by the failure to connect anew."""
    proxy.cut_when(is_commit, after=ANSWERED, then=proxy.refuse)
    with pytest.raises(CommitOutcomeUnknown) as caught, deadline(0.7):
        insert(one, 1)
    assert classify(caught.value).name == "outcome_unknown"
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)
    assert looked_up[0].startswith("unknown the server could not be asked")
    assert one.get_autocommit()
    assert not one.in_atomic_block


def test_a_session_lost_before_commit_has_not_committed(one: DatabaseWrapper, looked_up: list[str]) -> None:
    """Nobody needs to be asked for that."""
    other = one.copy()
    with pytest.raises(OperationalError) as caught, transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (1)")
        run(other, "SELECT pg_terminate_backend(%s)", [pid_of(one)])
        time.sleep(0.1)
    other.close()
    assert classify(caught.value).name in ("connection_lost", "shutting_down")
    assert looked_up == []


def test_a_read_only_transaction_has_nothing_to_lose(one: DatabaseWrapper, proxy: Proxy, looked_up: list[str]) -> None:
    proxy.cut_when(is_commit, after=SENT)
    with pytest.raises(OperationalError) as caught, transaction.atomic(using=one.alias):
        run(one, "SELECT count(*) FROM kept")
    assert classify(caught.value).name == "connection_lost"
    assert looked_up == []


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pay(1)",
        "SELECT 1 AS n INTO copied",
        "EXPLAIN ANALYZE DELETE FROM kept",
        "WITH gone AS (DELETE FROM kept RETURNING n) SELECT n FROM gone",
        "SELECT 1; DELETE FROM kept",
    ],
)
def test_what_may_have_written_is_in_doubt(
    one: DatabaseWrapper, proxy: Proxy, looked_up: list[str], query: str
) -> None:
    """Only what is certain to be a read is not: any other COMMIT is looked up, or of unknown outcome."""
    run(one, "CREATE FUNCTION pay(n int) RETURNS int LANGUAGE sql AS 'INSERT INTO kept VALUES (n); SELECT 1'")
    proxy.cut_when(is_commit, after=SENT)
    with suppress(CommitOutcomeUnknown), transaction.atomic(using=one.alias):
        run(one, query)
    assert len(looked_up) == 1


def test_another_cluster_is_not_believed(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """The name leads elsewhere by now, where the same id is another transaction's, which is stored."""
    database = database_url.rpartition("/")[2]
    top = int(str(postgres.execute("SELECT pg_current_xact_id()::text")[0][0])) + 50
    with ThrowawayPostgres() as green:
        green.execute(f'CREATE DATABASE "{database}"')
        green.execute(f"DO $$ BEGIN WHILE pg_current_xact_id()::text::int < {top} LOOP COMMIT; END LOOP; END $$")

        def move() -> None:
            proxy.server_port = green.port

        proxy.cut_when(is_commit, after=SEEN, then=move)
        with pytest.raises(CommitOutcomeUnknown, match="another database cluster"):
            insert(one, 1)
    assert looked_up == ["unknown the address leads to another database cluster by now"]
    assert stored(postgres, database_url) == []


@pytest.mark.timed
def test_one_that_must_wait_does_not_hold_up_all_others(
    one: DatabaseWrapper, proxy: Proxy, looked_up: list[str]
) -> None:
    """Behind a session that still works on its COMMIT the others would run out of time."""
    run(
        one,
        "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql SET client_connection_check_interval = 0"
        " AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER dozes AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.n = 1) EXECUTE FUNCTION doze();",
    )
    one.inc_thread_sharing()
    cut = proxy.cut_when(is_commit, after=SENT)

    def work() -> None:
        insert(connections[one.alias], 1)  # type: ignore[arg-type]
        connections[one.alias].close()

    slow = in_thread(work)
    try:
        assert cut.happened.wait(5)
        proxy.cut_when(is_commit, after=SENT)
        started = time.monotonic()
        insert(one, 2)
        took = time.monotonic() - started
    finally:
        slow.join()
    assert took < 1
    assert looked_up == ["committed"] * 2


def test_many_at_once_ask_a_few_at_a_time(one: DatabaseWrapper, proxy: Proxy, looked_up: list[str]) -> None:
    """A crowd that was cut off together does not come back as a crowd."""
    one.inc_thread_sharing()
    proxy.cut_when(is_commit, after=ANSWERED, times=3)

    def work(n: int) -> None:
        insert(connections[one.alias], n)  # type: ignore[arg-type]
        connections[one.alias].close()

    threads = [in_thread(lambda n=n: work(n)) for n in range(3)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert looked_up == ["committed"] * 3
