"""session.py: the server ends what a killed process asked for; what a session needs costs one round trip."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, run
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy
from tests.support.site import site_environment

SLEEPS = """
import django; django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT pg_sleep(60)")
"""
SHOW = "SELECT current_setting('client_connection_check_interval')"


def shown(wrapper: DatabaseWrapper) -> object:
    return run(wrapper, SHOW)[0][0]


def test_what_a_killed_process_asked_for_ends(database_url: str, postgres: ThrowawayPostgres) -> None:
    name = database_url.rsplit("/", 1)[1]
    environment = {**site_environment(DATABASE_URL=database_url), "DJANGO_SETTINGS_MODULE": "config.settings"}
    with subprocess.Popen([sys.executable, "-c", SLEEPS], cwd=BASE_DIR, env=environment) as process:
        asks = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE '%pg_sleep(60)%'"
        wait_until(lambda: postgres.execute(asks)[0][0] == 1)
        os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: postgres.backends(name) == 0, timeout_seconds=3)


def test_none_leaves_it_alone(make_wrapper: MakeWrapper) -> None:
    assert shown(make_wrapper(resilience={"client_check_seconds": None})) == "0"


def test_it_may_be_a_fraction(make_wrapper: MakeWrapper) -> None:
    assert shown(make_wrapper(resilience={"client_check_seconds": 0.5})) == "500ms"


def test_what_the_role_has_goes_first(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    postgres.execute("ALTER ROLE CURRENT_USER SET client_connection_check_interval = '7s'")
    try:
        assert shown(make_wrapper()) == "7s"
    finally:
        postgres.execute("ALTER ROLE CURRENT_USER RESET client_connection_check_interval")


def test_it_is_set_again_where_a_session_was_cleaned(wrapper: DatabaseWrapper) -> None:
    run(wrapper, "SET statement_timeout = '1min'")
    wrapper.close_if_unusable_or_obsolete()
    assert shown(wrapper) == "1s"


@pytest.mark.parametrize(
    "options",
    [{}, {"resilience": {"statement_timeout_seconds": 9}}, {"resilience": {"commit_lookup": False}}],
)
def test_a_new_session_is_set_up_in_one_round_trip(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, options: dict[str, dict[str, object]]
) -> None:
    wrapper = make_wrapper(url=proxy.url(database_url), **options)
    pool = wrapper.resources.pool
    assert pool is not None
    before = proxy.round_trips
    connection = wrapper.resources.connect()
    to_connect = proxy.round_trips - before
    pool._configure(connection)
    assert proxy.round_trips - before - to_connect == 1
    connection.close()


def test_a_server_that_refuses_it_is_used_without(make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on Windows does; what else a session needs is set all the same."""
    monkeypatch.setattr("dbresilience.session._noticing", lambda _: "SELECT set_config('nonsense', '1', false)")
    wrapper = make_wrapper(resilience={"statement_timeout_seconds": 9})
    assert run(wrapper, "SELECT current_setting('statement_timeout')") == [("9s",)]
    assert shown(wrapper) == "0"
    assert wrapper.resources.pool is not None
    with wrapper.cursor() as cursor:
        assert cursor.connection.cluster is not None
