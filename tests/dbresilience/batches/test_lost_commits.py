"""batches.py: the connection is lost on the way to COMMIT or from it."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError

from dbresilience import CommitOutcomeUnknown, classify, pipeline, retry
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.rows import create, end_session, names, owners, run_waiting
from tests.dbresilience.conftest import MakeWrapper, in_thread, run
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import Message, is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy

pytestmark = pytest.mark.usefixtures("nothing_is_out")


@pytest.mark.parametrize("after", [SENT, ANSWERED])
def test_without_the_id_nobody_knows(far: DatabaseWrapper, proxy: Proxy, after: str) -> None:
    hooks: list[int] = []
    proxy.cut_when(is_commit, after=after)
    with pytest.raises(CommitOutcomeUnknown, match="id is not known"), pipeline(using=far.alias):
        create(far, 1)
        far.on_commit(lambda: hooks.append(1))
    assert hooks == []
    # A server that cannot pass on the answer of the INSERT may notice that before it comes to COMMIT, or after it.
    assert names(far) in {SENT: ([], ["owner 1"]), ANSWERED: (["owner 1"],)}[after]


@pytest.mark.parametrize("after", [SENT, ANSWERED])
def test_with_the_id_it_is_looked_up(far: DatabaseWrapper, proxy: Proxy, after: str) -> None:
    """Some result had been asked for, and the id came along with it."""
    hooks: list[int] = []
    proxy.cut_when(is_commit, after=after)
    with pipeline(using=far.alias):
        create(far, 1)
        assert owners(far).count() == 1
        create(far, 2)
        far.on_commit(lambda: hooks.append(1))
    assert hooks == [1]
    assert names(far) == ["owner 1", "owner 2"]


@pytest.mark.parametrize(("ends_with", "stored"), [("RETURN NULL", ["owner 1"]), ("RAISE 'no'", [])])
def test_the_id_is_here_before_commit_begins(
    far: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, ends_with: str, stored: list[str]
) -> None:
    """All went in one round trip; the network breaks while COMMIT still works, and what came of it is looked up."""
    hooks: list[int] = []
    run(
        far,
        "CREATE FUNCTION batches_late() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN PERFORM pg_sleep(0.5); {ends_with}; END $$; "
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON batches_owner DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION batches_late()",
    )

    def break_while_it_works() -> None:
        wait_until(lambda: postgres.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'") != [])
        proxy.reset()
        proxy.restore()

    breaking, said = in_thread(break_while_it_works), "stored"
    try:
        with pipeline(using=far.alias):
            create(far, 1)
            far.on_commit(lambda: hooks.append(1))
    except OperationalError as error:
        said = classify(error).name
    breaking.join()
    assert (said, hooks) == (("stored", [1]) if stored else ("not_committed", []))
    assert names(far) == stored


def test_what_never_arrived_is_known_not_to_be_stored(far: DatabaseWrapper, proxy: Proxy) -> None:
    proxy.cut_when(is_commit, after=SEEN)
    with pytest.raises(OperationalError) as caught, pipeline(using=far.alias):
        create(far, 1)
        assert owners(far).count() == 1
    assert classify(caught.value).name == "not_committed"
    assert names(far) == []


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
def test_a_unit_that_may_run_twice_stores_once(far: DatabaseWrapper, proxy: Proxy, after: str) -> None:
    """The second run meets what the first has stored, and the primary key says so."""

    @retry(using=far.alias, idempotent=True)
    def work() -> str:
        try:
            with pipeline(using=far.alias):
                create(far, 1)
        except IntegrityError:
            return "was there"
        return "stored"

    cut = proxy.cut_when(is_commit, after=after)
    # What the server was sent it may have done before it noticed the loss, or not.
    assert work() in {SEEN: ["stored"], SENT: ["stored", "was there"], ANSWERED: ["was there"]}[after]
    assert cut.happened.is_set()
    assert names(far) == ["owner 1"]


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
def test_wherever_it_is_cut_what_is_said_is_so(far: DatabaseWrapper, proxy: Proxy, after: str) -> None:
    """At each message of a pipeline with a read in between: stored and well, not stored and an error, or unknown."""
    number = at = 0
    while True:
        number, at = number + 1, at + 1
        left = [at]

        def is_next(message: Message, left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] == 0

        run(far, "SELECT 1")
        cut, said = proxy.cut_when(is_next, after=after), "stored"
        try:
            with pipeline(using=far.alias):
                create(far, number)
                owners(far).count()
                create(far, 1000 + number)
        except CommitOutcomeUnknown:
            said = "unknown"
        except OperationalError:
            said = "not stored"
        if not cut.happened.is_set():
            proxy.cuts.clear()
            break
        proxy.cuts.clear()
        found = owners(far).filter(name__in=[f"owner {number}", f"owner {1000 + number}"]).count()
        assert (found, said) in [(2, "stored"), (0, "not stored"), (0, "unknown"), (2, "unknown")]
        assert far.resources.snapshot().in_use == 0
    assert at > 15


@pytest.mark.parametrize("options", [{}, {"pool": False}])
def test_a_session_that_ends_behind_its_last_answer_has_stored(
    far: DatabaseWrapper,
    make_wrapper: MakeWrapper,
    proxy: Proxy,
    postgres: ThrowawayPostgres,
    database_url: str,
    options: dict[str, Any],
) -> None:
    """COMMIT is answered; in the place of the answer that would end the pipeline stands the end of the session."""
    wrapper = make_wrapper(url=proxy.url(database_url), **options)
    database, hooks = database_url.rpartition("/")[2], []

    def end_before_sync(message: Message) -> bool:
        if message.kind == "Sync" and not ended:
            wait_until(lambda: postgres.execute("SELECT 1 FROM batches_owner", database=database) != [])
            ended.append(postgres.execute(f"SELECT pg_terminate_backend({pid})"))
            time.sleep(0.1)
        return False

    ended: list[Any] = []
    with pipeline(using=wrapper.alias):
        create(wrapper, 1)
        wrapper.on_commit(lambda: hooks.append(1))
        pid = wrapper.connection.info.backend_pid
        proxy.cut_when(end_before_sync, after=SEEN)
    assert ended
    assert hooks == [1]
    assert wrapper.get_autocommit()
    assert names(wrapper) == ["owner 1"]
    wrapper.close()


def test_a_session_that_is_ended_within_it_is_undone(far: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """The server says so in the place of a statement, so it never came to COMMIT."""
    with pytest.raises(OperationalError) as caught, pipeline(using=far.alias):
        create(far, 1)
        pid = far.connection.info.backend_pid
        run_waiting(far, "SELECT pg_sleep(5)")
        killer = in_thread(lambda: (time.sleep(0.3), end_session(postgres, pid)))
    killer.join()
    assert classify(caught.value).name == "not_committed"
    assert names(far) == []
