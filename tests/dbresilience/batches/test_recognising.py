"""recognising.py: reads of Django's whose answer says it all are called once, and give what they give alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import models
from django.db.models.sql import Query
from django.test.utils import CaptureQueriesContext

from dbresilience import gather
from dbresilience.base import DatabaseWrapper
from dbresilience.recognising import recognised
from tests.dbresilience.batches.reads import fill
from tests.dbresilience.batches.rows import items, owners
from tests.dbresilience.batches.tables import Owner

READS: dict[str, Callable[[DatabaseWrapper], Callable[[], Any]]] = {
    "how many": lambda ours: owners(ours).count,
    "how many of some": lambda ours: owners(ours).filter(points__gt=1).count,
    "how many different": lambda ours: items(ours).values("owner").distinct().count,
    "how many of the first": lambda ours: owners(ours).order_by("pk")[:2].count,
    "how many of none": lambda ours: owners(ours).none().count,
    "how many of a union": lambda ours: owners(ours).filter(points=1).union(owners(ours).filter(points=2)).count,
    "whether any": lambda ours: owners(ours).filter(points=1).exists,
    "whether any, there are none": lambda ours: owners(ours).filter(points=-1).exists,
    "whether any of none": lambda ours: owners(ours).none().exists,
    "whether any of those that are known": lambda ours: _known(owners(ours)).exists,
}


def _known(queryset: Any) -> Any:
    known = queryset.all()
    list(known)
    return known


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Django was asked to count or to look for."""
    seen: list[str] = []

    def noted(name: str, method: Any) -> Callable[..., Any]:
        def note(*args: Any, **given: Any) -> Any:
            seen.append(name)
            return method(*args, **given)

        return note

    for name in ("get_count", "has_results"):
        monkeypatch.setattr(Query, name, noted(name, getattr(Query, name)))
    return seen


@pytest.mark.parametrize("name", READS)
def test_it_gives_what_it_gives_alone_and_is_called_once(ours: DatabaseWrapper, calls: list[str], name: str) -> None:
    fill(ours.alias)
    alone = READS[name](ours)()
    times = len(calls)

    assert gather(READS[name](ours), using=ours.alias) == [alone]
    assert len(calls) == 2 * times


def test_that_of_a_manager_is_that_of_its_queryset(ours: DatabaseWrapper, calls: list[str]) -> None:
    fill(ours.alias)
    manager = Owner._default_manager.db_manager(ours.alias)

    assert gather(manager.count, manager.exists, using=ours.alias) == [owners(ours).count(), True]
    assert sorted(calls) == ["get_count", "get_count", "has_results"]
    one = owners(ours).order_by("pk").first()
    calls.clear()
    assert gather(one.items.count, using=ours.alias) == [one.items.count()]
    assert calls == ["get_count"] * 2


class Doubled(models.QuerySet[Owner]):
    """Counts in its own way."""

    def count(self) -> int:
        return 2 * super().count()


def test_who_counts_in_another_way_is_called_as_any_function(ours: DatabaseWrapper) -> None:
    fill(ours.alias)
    mine: Any = Doubled(Owner, using=ours.alias)
    manager: Any = models.Manager.from_queryset(Doubled)()
    manager.model, manager._db = Owner, ours.alias

    assert recognised(mine.count)[1] is None
    assert recognised(mine.exists)[1] is not None
    assert gather(mine.count, manager.count, using=ours.alias) == [2 * owners(ours).count()] * 2


def test_its_query_is_captured_once(ours: DatabaseWrapper) -> None:
    fill(ours.alias)
    with CaptureQueriesContext(ours) as captured:
        gather(owners(ours).count, owners(ours).filter(points=1).exists, using=ours.alias)

    assert ["COUNT" in query["sql"] for query in captured.captured_queries] == [True, False]
