"""compiled_reads.py: reads whose answer says it all are put into words once, and give what they give alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.db import models, router
from django.db.models.sql import Query
from django.test.utils import CaptureQueriesContext

from dbresilience import gather
from dbresilience.base import DatabaseWrapper
from dbresilience.compiled_reads import compile_function, is_count
from tests.dbresilience.batches.reads import fill
from tests.dbresilience.batches.rows import items, owners
from tests.dbresilience.batches.tables import Owner, create_tables
from tests.dbresilience.conftest import MakeWrapper

READS: dict[str, Callable[[DatabaseWrapper], Callable[[], Any]]] = {
    "how many": lambda ours: owners(ours).count,
    "how many of some": lambda ours: owners(ours).filter(points__gt=1).count,
    "how many of those with some": lambda ours: owners(ours).filter(items__pk__gt=1).count,
    "how many without some": lambda ours: owners(ours).exclude(items__pk__gt=1).count,
    "how many, whatever else is selected": lambda ours: items(ours).select_related("owner").order_by("-pk").count,
    "how many to lock": lambda ours: owners(ours).select_for_update().count,
    "how many of some columns": lambda ours: owners(ours).only("name").values_list("name").count,
    "how many of what is added": lambda ours: owners(ours).extra(select={"x": "1"}, where=["points > 1"]).count,
    "how many of what is computed": lambda ours: owners(ours).annotate(twice=models.F("points") * 2).count,
    "how many with an aggregate": lambda ours: owners(ours).annotate(n=models.Count("items")).filter(n__gt=0).count,
    "how many by an aggregate alone": lambda ours: owners(ours).filter(models.Q(models.Exists(items(ours)))).count,
    "how many by a window": lambda ours: (
        owners(ours).annotate(nth=models.Window(models.functions.RowNumber())).filter(nth__lt=2).count
    ),
    "how many groups": lambda ours: items(ours).values("owner").annotate(n=models.Count("pk")).count,
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
def test_it_asks_and_gives_what_it_does_alone_and_is_called_once(
    ours: DatabaseWrapper, calls: list[str], name: str
) -> None:
    fill(ours.alias)
    with CaptureQueriesContext(ours) as alone:
        result = READS[name](ours)()
    times = len(calls)

    with CaptureQueriesContext(ours) as gathered:
        assert gather(READS[name](ours), using=ours.alias) == [result]
    assert len(calls) <= 2 * times
    assert [query["sql"] for query in gathered] == [query["sql"] for query in alone]


def test_that_of_a_manager_is_that_of_its_queryset(ours: DatabaseWrapper, calls: list[str]) -> None:
    fill(ours.alias)
    manager = Owner._default_manager.db_manager(ours.alias)
    one = owners(ours).order_by("pk")[0]

    assert gather(manager.count, manager.exists, one.items.count, using=ours.alias) == [
        owners(ours).count(),
        True,
        items(ours).filter(owner=one).count(),
    ]
    assert calls == ["get_count"] * 2  # which are those that it is compared with


def test_one_of_another_database_is_called_as_any_function(ours: DatabaseWrapper) -> None:
    fill(ours.alias)

    assert compile_function(owners(ours).count, "another") is None
    assert compile_function(owners(ours).count, ours.alias) is not None


class Doubled(models.QuerySet[Owner]):
    """Counts in its own way."""

    def count(self) -> int:
        return 2 * super().count()


def test_who_counts_in_another_way_is_called_as_any_function(ours: DatabaseWrapper) -> None:
    fill(ours.alias)
    mine: Any = Doubled(Owner, using=ours.alias)
    manager: Any = models.Manager.from_queryset(Doubled)()
    manager.model, manager._db = Owner, ours.alias

    assert compile_function(mine.count, ours.alias) is None
    assert compile_function(mine.exists, ours.alias) is not None
    assert [is_count(read) for read in (mine.count, mine.exists, owners(ours).count)] == [False, False, True]
    assert gather(mine.count, manager.count, using=ours.alias) == [2 * owners(ours).count()] * 2


def test_its_query_is_captured_once(ours: DatabaseWrapper) -> None:
    fill(ours.alias)
    with CaptureQueriesContext(ours) as captured:
        gather(owners(ours).count, owners(ours).filter(points=1).exists, using=ours.alias)

    assert ["COUNT" in query["sql"] for query in captured.captured_queries] == [True, False]


def test_objects_are_made_when_the_connection_is_back(ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ours.alias)
    held: list[int] = []
    made = Owner.from_db

    def note(*args: Any) -> Any:
        held.append(ours.resources.snapshot().in_use)
        return made(*args)

    monkeypatch.setattr(Owner, "from_db", note)
    gather(owners(ours), owners(ours).count, using=ours.alias)
    assert set(held) == {0}


def test_a_router_is_asked_once_for_each_read(make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes replicas in turn would send the objects elsewhere than the question."""
    first, second = make_wrapper(), make_wrapper()
    create_tables(first)
    fill(first.alias)
    in_turn = itertools.cycle([first.alias, second.alias])

    class InTurn:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            return next(in_turn)

    monkeypatch.setattr(router, "routers", [InTurn()])
    (found,) = gather(Owner._default_manager.all(), using=first.alias)
    assert {each._state.db for each in found} == {first.alias}
