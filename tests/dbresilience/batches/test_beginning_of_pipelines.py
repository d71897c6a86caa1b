"""pipelines.py: a pipeline takes its connection when it has something to send."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction
from django.db.models import F
from django.db.models.sql.compiler import SQLInsertCompiler

from dbresilience import pipeline
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.programs import key
from tests.dbresilience.batches.rows import create, items, names, owners
from tests.dbresilience.batches.tables import Owner
from tests.support.proxy import Proxy


def test_its_connection_comes_with_the_first_statement(far: DatabaseWrapper, proxy: Proxy) -> None:
    create(far, 1)
    before = proxy.round_trips
    with pipeline(using=far.alias):
        assert far.resources.snapshot().in_use == 0
        owners(far).update(points=7)
        assert far.resources.snapshot().in_use == 1
        assert proxy.round_trips == before
    assert proxy.round_trips - before == 1
    assert owners(far).get().points == 7
    assert far.resources.snapshot().in_use == 0


@pytest.mark.parametrize("inner", [pipeline, transaction.atomic])
def test_what_begins_with_a_block_within_waits_as_well(far: DatabaseWrapper, proxy: Proxy, inner: Any) -> None:
    create(far, 1)
    before = proxy.round_trips
    with pipeline(using=far.alias):
        with inner(using=far.alias):
            owners(far).update(points=7)
        owners(far).update(points=F("points") + 1)
    assert proxy.round_trips - before <= 2
    assert owners(far).get().points == 8


def test_a_block_within_that_waits_for_nothing_leaves_the_outer_one_as_it_is(
    far: DatabaseWrapper, proxy: Proxy
) -> None:
    """Django makes no savepoint for it, so it sees a transaction that has no connection yet, either."""
    create(far, 1)
    before = proxy.round_trips
    with pipeline(using=far.alias):
        transaction.set_rollback(True, using=far.alias)
        with pipeline(using=far.alias):
            pass
        transaction.set_rollback(False, using=far.alias)
        owners(far).update(points=7)
        owners(far).update(points=F("points") + 1)
    assert proxy.round_trips - before == 1
    assert owners(far).get().points == 8


def test_one_that_asks_nothing_ends_as_any_other(far: DatabaseWrapper) -> None:
    ran: list[str] = []
    with pipeline(using=far.alias):
        transaction.on_commit(lambda: ran.append("kept"), using=far.alias)
    with pipeline(using=far.alias):
        transaction.on_commit(lambda: ran.append("undone"), using=far.alias)
        transaction.set_rollback(True, using=far.alias)
    assert ran == ["kept"]
    create(far, 1)
    with transaction.atomic(using=far.alias):
        assert far.batch is None
        assert names(far) == ["owner 1"]


def test_none_is_held_while_an_insert_is_put_into_words(ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Django opens its cursor first."""
    in_use: list[int] = []
    as_sql = SQLInsertCompiler.as_sql

    def noted(compiler: Any) -> Any:
        in_use.append(ours.resources.snapshot().in_use)
        return as_sql(compiler)

    monkeypatch.setattr(SQLInsertCompiler, "as_sql", noted)
    create(ours, 1)
    with pipeline(using=ours.alias):
        owners(ours).bulk_create([Owner(id=key(2), name="two"), Owner(id=key(3), name="three")])
    item = items(ours).create(label="no key yet")
    assert (item.pk, names(ours)) == (1, ["owner 1", "two", "three"])
    assert in_use == [0, 0, 0]
