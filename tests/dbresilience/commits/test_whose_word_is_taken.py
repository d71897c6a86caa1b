"""commits.py: who is asked what became of a COMMIT, how long that may take, and what is left of the question."""

from __future__ import annotations

import threading

import pytest
from django.db import OperationalError

from dbresilience import CommitOutcomeUnknown, classify, deadline
from dbresilience.base import DatabaseWrapper
from dbresilience.deadlines import seconds_left
from tests.dbresilience.conftest import in_thread
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import Message, is_commit
from tests.support.proxy import ANSWERED, SENT, Proxy
from tests.support.standby import Standby

from .conftest import insert, stored


@pytest.mark.slow
def test_a_standby_is_not_believed(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, looked_up: list[str]
) -> None:
    """It is behind, has never heard of the transaction, and would take it for one that has not happened."""
    with Standby(postgres) as standby:
        standby.wait_until_same()
        standby.execute("SELECT pg_wal_replay_pause()")

        def move() -> None:
            proxy.server_port = standby.port

        proxy.cut_when(is_commit, after=ANSWERED, then=move)
        with pytest.raises(CommitOutcomeUnknown, match="a standby cannot say"), deadline(1):
            insert(one, 1)
        assert looked_up == ["unknown a standby cannot say"]
        one.close()
        one.resources.close()


@pytest.mark.timed
def test_a_server_that_has_never_heard_of_it(
    one: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, looked_up: list[str]
) -> None:
    """It crashed before its log was on disk, and nobody else has been given the id since."""
    for setting in ("synchronous_commit = off", "wal_writer_delay = '10s'", "autovacuum = off"):
        postgres.execute(f"ALTER SYSTEM SET {setting}")
    postgres.execute("SELECT pg_reload_conf()")

    def crash() -> None:
        proxy.refuse()
        in_thread(lambda: (postgres.kill(), postgres.start(), proxy.restore()))

    try:
        said = "committed"
        for number in range(5):
            postgres.execute("CHECKPOINT")
            proxy.cut_when(is_commit, after=ANSWERED, then=crash)
            try:
                insert(one, number)
            except OperationalError as error:
                said = classify(error).name
                break
            # Somebody else at work there had the log written in between.
            assert number in stored(postgres, database_url)
            assert looked_up.pop() == "committed"
        assert (said, looked_up) == ("not_committed", ["not committed"])
        assert number not in stored(postgres, database_url)
    finally:
        postgres.start()
        postgres.execute("ALTER SYSTEM RESET ALL")
        postgres.execute("SELECT pg_reload_conf()")


@pytest.mark.timed
def test_the_question_is_a_part_of_what_the_request_waits_for(
    dozing: DatabaseWrapper, proxy: Proxy, looked_up: list[str]
) -> None:
    proxy.cut_when(is_commit, after=SENT)
    with deadline(5):
        insert(dozing, 1)
        assert seconds_left(9, None) < 4.4
    assert looked_up == ["committed"]


def test_nobody_goes_on_asking_when_the_time_is_over(one: DatabaseWrapper, proxy: Proxy) -> None:
    """Else each question to a server that says nothing would leave a thread and a session for ever."""

    def asks(message: Message) -> bool:
        return "pg_xact_status" in message.sql

    proxy.cut_when(is_commit, after=ANSWERED)
    asked = proxy.cut_when(asks, after=SENT, how="swallow")
    with pytest.raises(CommitOutcomeUnknown), deadline(0.7):
        insert(one, 1)
    assert asked.happened.is_set()
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "dbresilience-commit-lookup"])
