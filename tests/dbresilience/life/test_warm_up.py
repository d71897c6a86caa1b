"""warmup.py: processes that serve have asked the database before anybody asks them; others stay cold."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.dbresilience.life.serving import outcome
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site


def test_a_process_that_serves_has_a_connection_before_it_is_asked(database_url: str) -> None:
    log = outcome(
        """
get_wsgi_application()
found = warmed()
assert (found.warm_up, found.opened_total, found.idle, found.in_use) == ("done", 1, 1, 0), found
""",
        database_url,
    )
    assert "warm-up done" in log


@pytest.mark.parametrize(
    "code",
    [
        "from django.core.management import call_command; call_command('check')",
        "from django.test import Client; Client().get('/livez')",
        "connection.ensure_connection(); connection.close()",
    ],
)
def test_everybody_else_stays_cold(database_url: str, code: str) -> None:
    log = outcome(code + "\nassert pool.snapshot().warm_up == 'off'\nassert pool.snapshot().size <= 1", database_url)
    assert "warm-up" not in log


@pytest.mark.parametrize("option", ["warm_up=false", "scale_to_zero=true"])
def test_it_can_be_turned_off(database_url: str, option: str) -> None:
    outcome(
        "get_wsgi_application()\ntime.sleep(0.2)\nassert pool.snapshot().opened_total == 0", f"{database_url}?{option}"
    )


def test_scale_to_zero_leaves_nothing_open(database_url: str, postgres: ThrowawayPostgres) -> None:
    outcome(
        """
get_wsgi_application()
assert pool.configuration.max_idle == 1
def ask():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.2)")
threads = [threading.Thread(target=ask) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert pool.snapshot().size == 3, pool.snapshot()
until = time.monotonic() + 9
while pool.snapshot().size:
    assert time.monotonic() < until, pool.snapshot()
    time.sleep(0.1)
""",
        f"{database_url}?scale_to_zero=true&pool_max_idle=1",
    )


@pytest.mark.timed
def test_whoever_comes_early_waits_for_it_before_begin(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("SELECT clock_timestamp() - now()")
    assert asked, "it did not wait"
    assert cursor.fetchone()[0].total_seconds() < 0.3
assert pool.snapshot().opened_total == 1
""",
        database_url,
    )


def test_what_succeeds_is_asked_again_until_it_is_quick(database_url: str) -> None:
    """Nine times, or for a tenth of a second; what fails then fails nothing."""
    outcome(
        """
def quick():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    asked.append(1)
warmup.REHEARSING_SECONDS = 5
serve(warm_up_with=quick)
rehearsed()
assert len(asked) == 10, asked
assert pool.snapshot().in_use == 0
""",
        database_url,
    )
    outcome(
        """
def breaks():
    asked.append(1)
    assert len(asked) < 3
serve(warm_up_with=breaks)
rehearsed()
assert len(asked) == 3, asked
""",
        database_url,
    )
    outcome(
        """
def naps():
    asked.append(1)
    time.sleep(0.04)
serve(warm_up_with=naps)
rehearsed()
assert 1 < len(asked) <= 4, asked
""",
        database_url,
    )


def test_what_is_slow_is_asked_once(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
rehearsed()
assert len(asked) == 1, asked
""",
        database_url,
    )


@pytest.mark.timed
def test_but_no_longer_than_it_may(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
began = time.monotonic()
try:
    with dbresilience.deadline(0.2), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
except dbresilience.DatabaseUnavailable:
    pass
else:
    raise AssertionError("it had no time left")
assert 0.15 < time.monotonic() - began < 0.6
assert warmed().warm_up == "done"
""",
        database_url,
    )


def test_readiness_follows_it(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
from django.test import Client
response = Client().get("/readyz")
assert (response.status_code, response.json()["state"]) == (503, "warming_up"), response.content
assert Client().get("/livez").status_code == 200
warmed()
time.sleep(0.3)
assert Client().get("/readyz").status_code == 200
""",
        database_url,
    )


@pytest.mark.timed
def test_a_database_that_is_away_stops_no_start(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """The site starts, refuses at once, and serves when the database is there."""
    postgres.stop()
    try:
        site = start_site()
        began = time.monotonic()
        assert site.status("/readyz") == 503
        assert site.status("/api/threads", token="nonsense") == 503
        assert time.monotonic() - began < 3
        wait_until(lambda: "warm-up failed" in site.log)
    finally:
        postgres.start()
    wait_until(lambda: site.status("/readyz") == 200)
    assert site.status("/api/threads", token="nonsense") == 401


def test_a_frozen_server_holds_nobody_up_for_ever(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    postgres.freeze()
    try:
        site = start_site(url=f"{database_url}?deadline_seconds=2")
        began = time.monotonic()
        assert site.status("/api/threads", token="nonsense") in (503, 504)
        assert time.monotonic() - began < 5
    finally:
        postgres.thaw()


def test_what_a_warm_up_is_told_to_ask_may_fail(database_url: str) -> None:
    log = outcome(
        """
serve(warm_up_with="nowhere.at.all")
assert warmed().warm_up == "failed"
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
""",
        database_url,
    )
    assert "nowhere" in log
    assert "Traceback" not in log


def test_one_that_hangs_makes_nobody_wait_for_ever(database_url: str) -> None:
    """Requests stop waiting, and the process is ready, though its warm-up has not ended."""
    outcome(
        """
import dbresilience.warmup
dbresilience.warmup.LONGEST_SECONDS = 0.5
hangs = threading.Event()
serve(warm_up_with=lambda: hangs.wait(20) and None)
assert pool.snapshot().warm_up == "running"
time.sleep(0.7)
from django.test import Client
assert Client().get("/readyz").status_code == 200
assert pool.snapshot().warm_up == "failed"
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
hangs.set()
""",
        database_url,
    )
