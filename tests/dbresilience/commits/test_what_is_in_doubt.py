"""committing.py, executing.py: an outcome is called unknown where something is in doubt, and only there."""

from __future__ import annotations

import time
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError, transaction

from dbresilience import CommitOutcomeUnknown, classify
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, Proxy

from .conftest import insert, stored


@pytest.mark.parametrize("options", [{"pool": False}, {"resilience": {"lease": "request", "retry_attempts": 1}}])
def test_what_was_never_sent_has_no_unknown_outcome(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str, proxy: Proxy, options: dict[str, Any]
) -> None:
    """A lost connection stays in the hands of its request; a write on it is not sent, or is on another."""
    wrapper = make_wrapper(url=proxy.url(database_url), **options)
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    proxy.cut_when(lambda message: message.sql.startswith("SELECT 42"), after=ANSWERED)
    with pytest.raises(OperationalError):
        run(wrapper, "SELECT 42")
    for n in (1, 2):
        try:
            run(wrapper, f"INSERT INTO kept VALUES ({n})")
        except (OperationalError, InterfaceError) as error:
            assert not isinstance(error, CommitOutcomeUnknown)  # noqa: PT017  # one of two ends
            assert stored(postgres, database_url) == []
        else:
            assert stored(postgres, database_url)[-1] == n
        time.sleep(0.01)


def test_a_dead_connection_without_a_pool_does_not_reach_the_next_request(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy
) -> None:
    """Django closes what an error of psycopg's broke, and does not know ours."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool=False)
    wrapper.settings_dict["CONN_MAX_AGE"] = None
    run(wrapper, "CREATE TABLE kept (n int)")
    proxy.cut_when(lambda message: message.sql.startswith("INSERT"), after=ANSWERED)
    with pytest.raises(CommitOutcomeUnknown):
        run(wrapper, "INSERT INTO kept VALUES (1)")
    wrapper.close_if_unusable_or_obsolete()
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


def test_without_a_pool_a_read_only_transaction_has_nothing_to_lose_either(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy
) -> None:
    """It counts as not stored, and has no outcome to be in doubt of."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool=False)
    run(wrapper, "CREATE TABLE kept (n int)")
    insert(wrapper, 1)
    proxy.cut_when(is_commit, after=ANSWERED)
    with pytest.raises(OperationalError) as caught, transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT n FROM kept")
    assert classify(caught.value).name == "connection_lost"


def test_a_write_before_a_transaction_is_none_of_it(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> None:
    """With a lease for the request both are on one connection."""
    wrapper = make_wrapper(url=proxy.url(database_url), resilience={"lease": "request"})
    run(wrapper, "CREATE TABLE kept (n int)")
    run(wrapper, "INSERT INTO kept VALUES (1)")
    proxy.cut_when(is_commit, after=ANSWERED)
    with pytest.raises(OperationalError) as caught, transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT n FROM kept")
    assert classify(caught.value).name == "connection_lost"
