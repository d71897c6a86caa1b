"""Reads that are generated, for `gather()`: what each returns when it is asked alone is what it has to return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import connections, models
from django.db.models import F, Q, Value
from django.db.models.functions import Length
from hypothesis import strategies as st

from tests.dbresilience.batches.programs import key, plain
from tests.dbresilience.batches.tables import Item, Note, Owner


def fill(alias: str) -> None:
    owners = Owner._default_manager.using(alias)
    owners.bulk_create([Owner(id=key(number), name=name, points=number) for number, name in enumerate("abcd")])
    items = Item._default_manager.using(alias)
    items.bulk_create([Item(owner_id=key(n % 3), label=f"item {n}", rank=n) for n in range(1, 9)])
    items.create(label="nobody's")
    notes = Note._default_manager.using(alias)
    notes.bulk_create([Note(item_id=n, owner_id=key(1), text=f"note {n}") for n in range(1, 4)])


def _raw(alias: str, query: str) -> list[Any]:
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def _two(alias: str) -> tuple[int, bool]:
    return Owner._default_manager.using(alias).count(), Item._default_manager.using(alias).exists()


READS: dict[str, Callable[[str], Any]] = {
    "all": lambda alias: Owner._default_manager.using(alias).order_by("pk"),
    "empty": lambda alias: Owner._default_manager.using(alias).filter(name="nobody"),
    "none": lambda alias: Owner._default_manager.using(alias).none(),
    "impossible": lambda alias: Owner._default_manager.using(alias).filter(pk__in=[]),
    "related": lambda alias: Item._default_manager.using(alias).select_related("owner").order_by("pk"),
    "related twice": lambda alias: Note._default_manager.using(alias).select_related("item__owner").order_by("pk"),
    "prefetched": lambda alias: Owner._default_manager.using(alias).prefetch_related("items").order_by("pk"),
    "only": lambda alias: Owner._default_manager.using(alias).only("name").order_by("pk"),
    "deferred": lambda alias: Item._default_manager.using(alias).defer("label").order_by("pk"),
    "values": lambda alias: Item._default_manager.using(alias).values("label", "owner__name").order_by("pk"),
    "counted": lambda alias: (
        Item._default_manager.using(alias).values("owner").annotate(n=models.Count("pk")).order_by("owner")
    ),
    "list": lambda alias: Item._default_manager.using(alias).values_list("label", F("rank") + 1).order_by("pk"),
    "flat": lambda alias: Item._default_manager.using(alias).values_list("rank", flat=True).order_by("pk"),
    "named": lambda alias: Item._default_manager.using(alias).values_list("pk", "rank", named=True).order_by("pk"),
    "annotated": lambda alias: Owner._default_manager.using(alias).annotate(length=Length("name")).order_by("pk"),
    "filtered": lambda alias: Owner._default_manager.using(alias).filter(Q(items__rank__gt=2) | Q(points=0)).distinct(),
    "sliced": lambda alias: Item._default_manager.using(alias).order_by("-pk")[1:4],
    "union": lambda alias: (
        Owner._default_manager.using(alias)
        .values_list("name")
        .union(Item._default_manager.using(alias).values_list("label"))
        .order_by("name")
    ),
    "united models": lambda alias: (
        Owner._default_manager.using(alias).filter(points=1).union(Owner._default_manager.using(alias).filter(points=2))
    ),
    "extra": lambda alias: Owner._default_manager.using(alias).extra(select={"twice": "points * 2"}).order_by("pk"),
    "extra values": lambda alias: (
        Owner._default_manager.using(alias).extra(select={"twice": "points * 2"}).values_list("name", "twice")
    ),
    "constant": lambda alias: Owner._default_manager.using(alias).annotate(c=Value("%s ; $1")).values("c"),
    "dates": lambda alias: Item._default_manager.using(alias).filter(label__contains="%").order_by("pk"),
    "in a subquery": lambda alias: (
        Owner._default_manager.using(alias)
        .filter(pk__in=Item._default_manager.using(alias).values("owner"))
        .order_by("pk")
    ),
    "of an owner": lambda alias: _items_of(alias),
    "evaluated": lambda alias: _evaluated(alias),
    "wrong column": lambda alias: Owner._default_manager.using(alias).extra(select={"no": "nonsense"}),
    "wrong sum": lambda alias: Owner._default_manager.using(alias).extra(where=["1 / points > 0"]),
    "wrong field": lambda alias: lambda: list(Owner._default_manager.using(alias).filter(nonsense=1)),
    "locked": lambda alias: Owner._default_manager.using(alias).select_for_update().order_by("pk"),
    "count": lambda alias: Item._default_manager.using(alias).filter(rank__gt=1).count,
    "exists": lambda alias: Note._default_manager.using(alias).exists,
    "first": lambda alias: Item._default_manager.using(alias).order_by("-rank").first,
    "last": lambda alias: Item._default_manager.using(alias).last,
    "get": lambda alias: lambda: Owner._default_manager.using(alias).get(pk=key(1)),
    "get related": lambda alias: lambda: Item._default_manager.using(alias).select_related("owner").get(pk=1),
    "get nobody": lambda alias: lambda: Owner._default_manager.using(alias).get(pk=key(77)),
    "get many": lambda alias: lambda: Item._default_manager.using(alias).get(rank__gt=0),
    "aggregate": lambda alias: (
        lambda: Item._default_manager.using(alias).aggregate(models.Sum("rank"), models.Max("pk"))
    ),
    "in_bulk": lambda alias: lambda: Owner._default_manager.using(alias).in_bulk([key(1), key(2)]),
    "iterator": lambda alias: lambda: list(Item._default_manager.using(alias).order_by("pk").iterator(chunk_size=2)),
    "explain": lambda alias: lambda: len(Owner._default_manager.using(alias).explain()) > 0,
    "a constant": lambda alias: lambda: 7,
    "raw": lambda alias: (
        lambda: list(Owner._default_manager.using(alias).raw("SELECT * FROM batches_owner ORDER BY 1"))
    ),
    "cursor": lambda alias: lambda: _raw(alias, "SELECT name FROM batches_owner ORDER BY 1"),
    "several": lambda alias: lambda: _raw(alias, "SELECT 1; SELECT 2"),
    "raw error": lambda alias: lambda: _raw(alias, "SELECT nonsense"),
    "two": lambda alias: lambda: _two(alias),
    "its own error": lambda alias: lambda: {}["missing"],
}


def _items_of(alias: str) -> Any:
    owner = Owner(id=key(1))
    owner._state.db, owner._state.adding = alias, False
    return owner.items.order_by("pk")  # type: ignore[attr-defined]


def _evaluated(alias: str) -> Any:
    queryset = Owner._default_manager.using(alias).order_by("pk")
    len(queryset)
    return queryset


def shown(value: Any) -> Any:
    """A result, with what comes along with its objects and costs no query any more."""
    if isinstance(value, list):
        return [shown(each) for each in value]
    if isinstance(value, models.Model):
        related = {name: shown(each) for name, each in value._state.fields_cache.items()}
        fetched = {name: plain(list(each)) for name, each in getattr(value, "_prefetched_objects_cache", {}).items()}
        extra = {name: each for name, each in vars(value).items() if name in ("twice", "length")}
        return plain(value), related, fetched, extra, value._state.db, value._state.adding
    return plain(value)


lists = st.lists(st.sampled_from(sorted(READS)), max_size=7)
