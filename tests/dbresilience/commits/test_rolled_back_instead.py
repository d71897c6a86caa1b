"""committing.py: a COMMIT that the server answers with ROLLBACK, without an error, is none."""

from __future__ import annotations

from contextlib import suppress

import psycopg
import pytest
from django.db import DatabaseError, InternalError, transaction

from dbresilience import classify
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import run

from .conftest import insert


def test_who_passes_over_an_error_is_told_at_the_end(one: DatabaseWrapper) -> None:
    """On Django's backend the block ends as if it were stored, and its hooks run."""
    hooks: list[int] = []
    with (
        pytest.raises(InternalError, match="rolled the transaction back instead") as caught,
        transaction.atomic(using=one.alias),
    ):
        one.on_commit(lambda: hooks.append(1))
        run(one, "INSERT INTO kept VALUES (1)")
        with suppress(DatabaseError):
            run(one, "SELECT nothing")
    assert classify(caught.value).name == "not_transient"
    assert hooks == []
    insert(one, 2)
    assert run(one, "SELECT n FROM kept") == [(2,)]
    assert one.resources.snapshot().opened_total == 1


def test_so_is_who_commits_by_hand(one: DatabaseWrapper) -> None:
    one.set_autocommit(False)
    run(one, "INSERT INTO kept VALUES (1)")
    with suppress(DatabaseError):
        run(one, "SELECT nothing")
    with pytest.raises(InternalError):
        one.commit()
    insert(one, 2)
    one.commit()
    one.set_autocommit(True)
    assert run(one, "SELECT n FROM kept") == [(2,)]


def test_so_is_who_uses_psycopgs_transactions(one: DatabaseWrapper) -> None:
    with one.pinned(), pytest.raises(psycopg.errors.InFailedSqlTransaction), one.connection.transaction():
        one.connection.execute("INSERT INTO kept VALUES (1)")
        with suppress(psycopg.Error):
            one.connection.execute("SELECT nothing")
    assert run(one, "SELECT n FROM kept") == []


def test_who_mends_it_or_gives_up_is_not_told(one: DatabaseWrapper) -> None:
    with transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (1)")
        with suppress(DatabaseError), transaction.atomic(using=one.alias):
            run(one, "SELECT nothing")
    with transaction.atomic(using=one.alias):
        with suppress(DatabaseError):
            run(one, "SELECT nothing")
        one.set_rollback(True)
    assert run(one, "SELECT n FROM kept") == [(1,)]
