"""overdue.py and admission.py: a server that says nothing is found out; a slow one is left in peace."""

from __future__ import annotations

import contextlib
import threading
import time

import psycopg
import pytest
from django.db import OperationalError

from dbresilience import classify, deadline
from dbresilience.base import DatabaseWrapper
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy

from .conftest import MakeWrapper, in_thread, pid_of, works
from .test_deadlines import sleep


def test_an_answer_closes_a_breaker_that_silence_opened(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """Whoever was answered goes on, though no probe has told yet; who waits for a connection is told at once."""
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 20})
    pid_of(wrapper)
    refused: list[float] = []

    def wait_for_a_connection() -> None:
        other = make_wrapper(pool={"max_size": 1, "timeout": 20})
        with deadline(20):
            started = time.monotonic()
            try:
                pid_of(other)
            except OperationalError:
                refused.append(time.monotonic() - started)
        other.close()

    thread = threading.Timer(0.5, wait_for_a_connection)
    thread.start()
    threading.Timer(0.2, postgres.freeze).start()
    threading.Timer(6, postgres.thaw).start()
    with deadline(20):
        sleep(wrapper, 0.6)
        pid_of(wrapper)
    thread.join(10)
    assert refused
    assert refused[0] < 5


def test_a_frozen_server_is_noticed_long_before_the_deadline(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """By a probe, when a statement is silent; whoever comes then is refused at once."""
    wrapper = make_wrapper(pool={"max_size": 2})
    pid_of(wrapper)
    postgres.freeze()

    def wait_in_vain() -> None:
        other = make_wrapper(pool={"max_size": 2})
        with deadline(30), contextlib.suppress(OperationalError):
            pid_of(other)
        other.close()

    thread = in_thread(wait_in_vain)
    admission = wrapper.resources.pool.admission  # type: ignore[union-attr]
    wait_until(lambda: admission.state == "open", timeout_seconds=6, what="an open breaker")
    postgres.thaw()
    thread.join(5)
    wait_until(lambda: works(wrapper), timeout_seconds=1, what="an answer")


def test_a_slow_statement_is_no_outage(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """The probe that asks is answered, and leaves no connection behind."""
    wrapper = make_wrapper(pool={"max_size": 1})
    with deadline(10):
        sleep(wrapper, 3.6)
    assert wrapper.resources.pool.admission.opened_total == 0  # type: ignore[union-attr]
    wait_until(lambda: postgres.backends(wrapper.settings_dict["NAME"]) == 1, timeout_seconds=3)


@pytest.mark.timed
def test_rows_that_trickle_in_are_late_too(make_wrapper: MakeWrapper) -> None:
    """The socket is never silent, and the deadline is kept."""
    wrapper = make_wrapper()
    started = time.monotonic()
    with deadline(0.5), wrapper.cursor() as cursor, pytest.raises(OperationalError):
        cursor.execute("SELECT repeat('x', 9000), pg_sleep(0.02) FROM generate_series(1, 200)")
    assert time.monotonic() - started < 1


def test_rows_that_trickle_in_are_no_silence(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> None:
    """However long they take in all, nobody asks whether the server answers."""
    wrapper = make_wrapper(url=proxy.url(database_url))
    with deadline(20), wrapper.cursor() as cursor:
        cursor.execute("SELECT repeat('x', 9000), pg_sleep(0.1) FROM generate_series(1, 38)")
    assert len(proxy.opened_at) == 1


def test_after_a_freeze_what_follows_is_refused_as_an_outage(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """A middleware that stores the session on the way out must not turn the 503 into a 504."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    postgres.freeze()
    with deadline(0.4):
        for _ in range(2):
            with pytest.raises(OperationalError) as caught:
                pid_of(wrapper)
            assert classify(caught.value).status == 503
    postgres.thaw()


def test_a_slow_statement_and_a_role_without_a_spare_connection(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """The probe is told that there are too many: an answer, so nobody is refused."""
    wrapper = make_wrapper(pool={"max_size": 2})
    name = wrapper.settings_dict["NAME"]
    postgres.execute("CREATE ROLE limited LOGIN SUPERUSER")
    postgres.execute(f"ALTER DATABASE {name} CONNECTION LIMIT 2")
    postgres.execute("ALTER ROLE limited NOSUPERUSER")
    wrapper.settings_dict["USER"] = "limited"
    with wrapper.cursor() as one, wrapper.cursor():
        one.execute("SELECT 1")
        thread = in_thread(lambda: _sleep_elsewhere(make_wrapper, wrapper))
        time.sleep(4.2)
        one.execute("SELECT 2")
        thread.join(5)
    assert wrapper.resources.pool.admission.opened_total == 0  # type: ignore[union-attr]
    postgres.execute("DROP ROLE limited")


def _sleep_elsewhere(make_wrapper: MakeWrapper, like: DatabaseWrapper) -> None:
    other = DatabaseWrapper(like.settings_dict, like.alias)
    with deadline(20):
        sleep(other, 4.5)
    other.close()


def test_an_old_libpq_is_cancelled_from_a_thread(make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own cancel call knows no time-out."""
    monkeypatch.setattr(psycopg.capabilities, "has_cancel_safe", lambda check=False: False)
    wrapper = make_wrapper()
    pid = pid_of(wrapper)
    with deadline(0.4), pytest.raises(OperationalError) as caught:
        sleep(wrapper, 5)
    assert classify(caught.value).name == "timeout"
    assert pid_of(wrapper) == pid
