"""committing.py: where the outcome of a COMMIT cannot be looked up, and what is said then."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.db import InterfaceError, OperationalError

from dbresilience import CommitOutcomeUnknown
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.protocol import Message, is_commit
from tests.support.proxy import ANSWERED, Proxy

from .conftest import insert


@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"resilience": {"commit_lookup": False}}])
def test_where_it_is_not_asked_for_the_outcome_stays_unknown(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, options: dict[str, Any]
) -> None:
    wrapper = make_wrapper(url=proxy.url(database_url), **options)
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    proxy.cut_when(is_commit, after=ANSWERED)
    with pytest.raises(CommitOutcomeUnknown):
        insert(wrapper, 1)
    asked = [statement for statement in proxy.statements if "pg_current_xact_id" in statement]
    assert not [statement for statement in asked if "pg_control_system" not in statement]  # but while connecting


def test_without_a_pool_the_outcome_is_unknown(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> None:
    """And the error says so; the next transaction connects anew."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool=False)
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    proxy.cut_when(is_commit, after=ANSWERED)
    with pytest.raises(CommitOutcomeUnknown, match="without a pool"):
        insert(wrapper, 1)
    with suppress(OperationalError, InterfaceError):
        wrapper.close()
    insert(wrapper, 2)


def test_a_write_outside_a_transaction_is_of_unknown_outcome(one: DatabaseWrapper, proxy: Proxy) -> None:
    """There is no id to look up; it is never sent again."""

    def is_insert(message: Message) -> bool:
        return message.sql.startswith("INSERT")

    proxy.cut_when(is_insert, after=ANSWERED)
    with pytest.raises(CommitOutcomeUnknown, match="outside a transaction"):
        run(one, "INSERT INTO kept VALUES (1)")
    assert run(one, "SELECT n FROM kept") == [(1,)]


def test_a_transaction_of_psycopgs_own_is_of_unknown_outcome(one: DatabaseWrapper, proxy: Proxy) -> None:
    """Its COMMIT does not pass through Django's."""
    proxy.cut_when(is_commit, after=ANSWERED)
    one.ensure_connection()
    assert one.connection is not None
    with pytest.raises(CommitOutcomeUnknown), one.connection.transaction():
        one.connection.execute("INSERT INTO kept VALUES (1)")
    one.close()


def test_manual_transactions_do_not_go_on_in_autocommit(one: DatabaseWrapper, proxy: Proxy, postgres: Any) -> None:
    """After a looked-up commit() the connection is gone, and what follows must not be stored by itself."""
    one.set_autocommit(False)
    run(one, "INSERT INTO kept VALUES (1)")
    proxy.cut_when(is_commit, after=ANSWERED)
    one.commit()
    with pytest.raises((OperationalError, InterfaceError)):
        run(one, "INSERT INTO kept VALUES (2)")
    one.close()
    one.set_autocommit(True)
    assert run(one, "SELECT n FROM kept") == [(1,)]
