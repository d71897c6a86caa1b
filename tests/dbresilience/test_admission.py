"""admission.py on a real server: who waits, who is refused, who dials."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from django.db import OperationalError

from dbresilience import DatabaseUnavailable, classify, looking_again
from dbresilience.base import DatabaseWrapper
from dbresilience.pacing import SharedPace
from dbresilience.signals import breaker_closed, breaker_opened
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy

from .conftest import MakeWrapper, in_thread, orders_of, pid_of, wait_for_probes, works
from .test_deadlines import seconds_of


@contextmanager
def news_of(alias: str) -> Iterator[list[str]]:
    news: list[str] = []

    def opened(**details: object) -> None:
        news.append("opened")

    def closed(**details: object) -> None:
        news.append("closed")

    breaker_opened.connect(opened, sender=alias)
    breaker_closed.connect(closed, sender=alias)
    yield news


@pytest.fixture
def nobody_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking_again, "EVERY_SECONDS", float("inf"))


def refusal_of(wrapper: object) -> OperationalError:
    with pytest.raises(OperationalError) as caught:
        pid_of(wrapper)  # type: ignore[arg-type]
    return caught.value


@pytest.mark.timed
def test_while_the_server_is_away_refusals_are_quick_and_few_dial(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """Each carries the cause; a second of many requests is a dozen attempts to connect."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    with news_of(wrapper.alias) as news:
        postgres.stop("immediate")
        refusal_of(wrapper)
        taken, dialled = [], 0
        original = wrapper.resources.pool.admission._dial  # type: ignore[union-attr]

        def count() -> None:
            nonlocal dialled
            dialled += 1
            original()

        wrapper.resources.pool.admission._dial = count  # type: ignore[union-attr]
        until = time.monotonic() + 1
        while time.monotonic() < until:
            taken.append(seconds_of(lambda: refusal_of(wrapper)))
        assert sorted(taken)[len(taken) * 99 // 100] < 0.05
        assert sorted(taken)[len(taken) // 2] < 0.001
        seconds_between_two = 1 / dialled
        assert seconds_between_two <= 0.2
        assert dialled <= 14
        error = refusal_of(wrapper)
        assert "cannot be reached" in str(error)
        assert "refused" in str(error)
        assert classify(error).name == "cannot_connect"
        assert wrapper.resources.snapshot().breaker == "open"
        postgres.start()
        wait_until(lambda: works(wrapper), timeout_seconds=0.3, what="an answer")
        assert news == ["opened", "closed"]
    assert wrapper.resources.snapshot().breaker == "closed"


def test_the_first_request_after_a_quiet_night_is_served(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, nobody_looks_again: None
) -> None:
    """Nobody asked while the server came back, so nobody knows; asking finds out."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    postgres.stop("immediate")
    refusal_of(wrapper)
    wait_for_probes(wrapper)
    postgres.start()
    time.sleep(0.5)
    assert wrapper.resources.snapshot().breaker == "open"
    pid_of(wrapper)


def test_the_probes_connection_is_the_first_of_the_pool(
    make_wrapper: MakeWrapper, proxy: Proxy, database_url: str, nobody_looks_again: None
) -> None:
    """Otherwise a full server's only free slot would be found, and lost again."""
    wrapper = make_wrapper(url=proxy.url(database_url))
    pid_of(wrapper)
    proxy.refuse()
    proxy.cut()
    refusal_of(wrapper)
    wait_for_probes(wrapper)
    proxy.restore()
    time.sleep(0.2)
    opened = len(proxy.opened_at)
    pid_of(wrapper)
    assert len(proxy.opened_at) == opened + 1


@pytest.mark.timed
def test_a_full_server_is_asked_again_once(make_wrapper: MakeWrapper) -> None:
    """After a moment that differs from process to process; then 503. It is counted."""
    with ThrowawayPostgres(max_connections="6", superuser_reserved_connections="0") as server:
        wrapper = make_wrapper(url=server.url())
        others = [psycopg.connect(server.url()) for _ in range(6)]
        started = time.monotonic()
        error = refusal_of(wrapper)
        assert 0.4 < time.monotonic() - started < 2.5
        assert classify(error).name == "server_full"
        assert wrapper.resources.snapshot().server_full_total == 2
        for other in others:
            other.close()
        pid_of(wrapper)
        # Where one has found a slot, the next process may try at once.
        assert SharedPace(orders_of(wrapper), 60).take_turn()


def test_idle_connections_of_other_aliases_make_room(make_wrapper: MakeWrapper) -> None:
    """One of this process's own pools had the last slots, and does not need them."""
    from django.db import connections

    with ThrowawayPostgres(max_connections="6", superuser_reserved_connections="0") as server:
        idle = make_wrapper(url=server.url(), pool={"min_size": 6, "max_size": 6})
        pid_of(idle)
        wait_until(lambda: idle.resources.snapshot().idle == 6)
        needy = DatabaseWrapper({**idle.settings_dict, "OPTIONS": {}}, "needy")
        connections.settings["needy"] = needy.settings_dict
        connections["needy"] = needy
        try:
            pid_of(needy)
            assert idle.resources.snapshot().idle == 0
        finally:
            needy.close()
            needy.resources.close()
            del connections.settings["needy"]
            del connections["needy"]


@pytest.mark.parametrize("end", ["close", "pause", "recycle"])
def test_a_probe_that_was_under_way_opens_no_pool_that_was_ended(
    make_wrapper: MakeWrapper, proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, nobody_looks_again: None,
    end: str,
) -> None:  # fmt: skip
    """Nobody would close it again. The next request does open it."""
    wrapper = make_wrapper(url=proxy.url(database_url))
    pid_of(wrapper)
    proxy.refuse()
    proxy.cut()
    refusal_of(wrapper)
    pool = wrapper.resources.pool
    assert pool is not None
    opened = len(proxy.opened_at)
    proxy.restore()
    proxy.delay(0.2)

    def dials() -> bool:
        with suppress(DatabaseUnavailable):
            pool.admission.admit(0)
        return len(proxy.opened_at) > opened

    wait_until(dials, what="a probe")
    if end == "pause":
        pool.pause(30)
        wrapper.inc_thread_sharing()
        asking = in_thread(lambda: works(wrapper))  # it waits for the end of the pause, and wants a connection then
    else:
        getattr(pool, end)()
    wait_until(lambda: pool.admission.cause is None, what="the end of the probe")
    wait_until(lambda: postgres.backends(wrapper.settings_dict["NAME"]) == 0, what="the end of its connection")
    if end == "pause":
        pool.resume()
        asking.join(10)
        wrapper.dec_thread_sharing()
    assert works(wrapper)
