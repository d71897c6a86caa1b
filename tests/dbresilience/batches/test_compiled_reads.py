"""compiled_reads.py: reads whose answer says it all are put into words once, and give what they give alone."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Callable
from functools import wraps
from typing import Any

import psycopg
import pytest
from django.db import ProgrammingError, models, router
from django.db.models.lookups import GreaterThan
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext

from dbresilience import compiled_reads, gather
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
    "how many by an aggregate alone": lambda ours: owners(ours).filter(GreaterThan(models.Count("items"), 0)).count,
    "how many by a window alone": lambda ours: (
        owners(ours).filter(GreaterThan(models.Window(models.functions.RowNumber()), 1)).count
    ),
    "how many with something elsewhere": lambda ours: owners(ours).filter(models.Q(models.Exists(items(ours)))).count,
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

COMPILED = {
    "how many", "how many of some", "how many of those with some", "how many without some", "how many to lock",
    "how many, whatever else is selected", "how many of some columns", "how many of what is added", "how many of none",
    "how many with something elsewhere", "whether any", "whether any, there are none", "whether any of none",
}  # fmt: skip
"""Those for which Django's own way is not gone at all."""


def _known(queryset: Any) -> Any:
    known = queryset.all()
    list(known)
    return known


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Django was asked to count or to look for."""
    seen: list[str] = []

    def noted(name: str, method: Any) -> Callable[..., Any]:
        @wraps(method)
        def note(*args: Any, **given: Any) -> Any:
            seen.append(name)
            return method(*args, **given)

        return note

    for own in list(compiled_reads._OWN.values()):
        name = own.asking.__name__
        method = noted(name, own.asking)
        monkeypatch.setattr(Query, name, method)
        monkeypatch.setitem(compiled_reads._OWN, own.name, own._replace(asking=method))
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
    assert len(calls) == (times if name in COMPILED else 2 * times)
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


@pytest.mark.parametrize("patched", ["queryset", "query"])
def test_what_somebody_has_put_in_their_place_is_called(
    ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch, patched: str
) -> None:
    """Counts are estimated, and answers come from caches."""
    fill(ours.alias)
    if patched == "queryset":
        monkeypatch.setattr(models.QuerySet, "count", lambda self: 42)
    else:
        monkeypatch.setattr(Query, "get_count", lambda self, using: 42)
    manager = Owner._default_manager.db_manager(ours.alias)

    assert gather(owners(ours).count, manager.count, using=ours.alias) == [42, 42]


@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 5}])
def test_where_statements_do_not_wait_the_connection_is_given_back_as_early(
    make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    wrapper = make_wrapper(**options)
    create_tables(wrapper)
    fill(wrapper.alias)
    held: list[int] = []
    made = Owner.from_db.__func__  # type: ignore[attr-defined]  # a class method

    def note(*args: Any) -> Any:
        held.append(wrapper.resources.snapshot().in_use)
        return made(*args)

    monkeypatch.setattr(Owner, "from_db", classmethod(note))
    gather(owners(wrapper), owners(wrapper), owners(wrapper).count, using=wrapper.alias)
    assert set(held) == {0}
    with pytest.raises(ProgrammingError) as caught:
        gather(owners(wrapper), owners(wrapper).extra(where=["nonsense"]), using=wrapper.alias)
    assert wrapper.resources.snapshot().in_use == 0
    assert caught.value.__traceback__ is not None  # which holds all frames and what is in them


def test_a_count_may_come_in_binary(make_wrapper: MakeWrapper) -> None:
    class Binary(psycopg.Cursor[Any]):
        format = psycopg.pq.Format.BINARY

    wrapper = make_wrapper(cursor_factory=Binary)
    create_tables(wrapper)
    fill(wrapper.alias)
    assert gather(owners(wrapper).count, using=wrapper.alias) == [owners(wrapper).count()]


def test_nothing_is_left_for_the_garbage_collector(ours: DatabaseWrapper) -> None:
    """A query, its compiler and its rows would stay until it comes, in which threads wait."""
    fill(ours.alias)
    reads = [owners(ours), items(ours).select_related("owner"), owners(ours).count, owners(ours).exists]
    gather(*reads, using=ours.alias)
    gc.collect()
    gc.disable()
    try:
        gather(*reads, using=ours.alias)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [each for each in gc.garbage if isinstance(each, (Query, SQLCompiler, psycopg.Cursor))] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
