"""What the operations of a program do, and what a run of one shows."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import DatabaseError, connections, models, transaction
from django.db.models import F

from tests.dbresilience.batches.tables import Item, Note, Owner

Operation = tuple[Any, ...]


class Boom(Exception):
    """The program's own."""


@dataclass
class Seen:
    """What a run shows: the result of each operation, the error that ended it, the `on_commit` functions that ran."""

    results: list[Any] = field(default_factory=list)
    error: tuple[type[BaseException], str] | None = None
    hooks: list[Any] = field(default_factory=list)


def described(error: BaseException) -> tuple[type[BaseException], str]:
    return type(error), str(error)


def key(number: int) -> UUID:
    return UUID(int=number)


def plain(value: Any) -> Any:
    """A result without the identity of its objects."""
    if isinstance(value, models.Model):
        names = [each.attname for each in value._meta.concrete_fields]
        deferred = value.get_deferred_fields()
        return type(value).__name__, {name: getattr(value, name) for name in names if name not in deferred}
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


class Run:
    """One run of a program on one alias."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.seen = Seen()
        self.owners = Owner._default_manager.using(alias)
        self.items = Item._default_manager.using(alias)
        self.notes = Note._default_manager.using(alias)

    def __call__(self, program: list[Operation], block: Callable[[], AbstractContextManager[Any]]) -> Seen:
        try:
            with block():
                self.go_through(program, self.seen.results)
        except Exception as error:
            self.seen.error = described(error)
        return self.seen

    def go_through(self, program: list[Operation], results: list[Any]) -> None:
        for name, *arguments in program:
            results.append((name, plain(getattr(self, name)(*arguments))))

    # Writes

    def create_owner(self, number: int, name: str, points: int) -> Any:
        return self.owners.create(id=key(number), name=name, points=points)

    def create_item(self, owner: int | None, label: str, rank: int | None) -> Any:
        return self.items.create(owner_id=None if owner is None else key(owner), label=label, rank=rank)

    def create_note(self, item: int | None, owner: int | None) -> Any:
        return self.notes.create(item_id=item, owner_id=None if owner is None else key(owner), text="a note")

    def save_owner(self, number: int, name: str, how: dict[str, Any]) -> Any:
        owner = Owner(id=key(number), name=name, points=1)
        owner.save(using=self.alias, **how)
        return owner

    def change_owner(self, number: int, points: int) -> Any:
        owner = self.owners.filter(pk=key(number)).first()
        if owner is not None:
            owner.points = points
            owner.save()
            owner.refresh_from_db()
        return owner

    def bulk_create_owners(self, rows: list[tuple[int, str, int]], how: dict[str, Any]) -> Any:
        owners = [Owner(id=key(number), name=name, points=points) for number, name, points in rows]
        return self.owners.bulk_create(owners, **how)

    def bulk_create_items(self, ranks: list[int | None], size: int | None) -> Any:
        return self.items.bulk_create([Item(label="bulk", rank=rank) for rank in ranks], batch_size=size)

    def bulk_update_owners(self, points: int) -> Any:
        owners = list(self.owners.order_by("pk")[:2])
        for owner in owners:
            owner.points = points
        return self.owners.bulk_update(owners, ["points"])

    def update_owners(self, name: str, change: int, looks: bool) -> Any:
        count = self.owners.filter(name=name).update(points=F("points") + change)
        return int(count) if looks else None

    def update_items(self, rank: int | None, looks: bool) -> Any:
        count = self.items.update(rank=rank)
        return count + 0 if looks else None

    def update_through_owner(self, name: str) -> Any:
        return self.items.filter(owner__name=name).update(label="through") > 0

    def delete_owner(self, number: int) -> Any:
        return Owner(id=key(number)).delete(using=self.alias)

    def delete_items(self, label: str) -> Any:
        return self.items.filter(label=label).delete()

    def get_or_create(self, number: int, name: str) -> Any:
        return self.owners.get_or_create(name=name, defaults={"id": key(number)})

    def update_or_create(self, number: int, name: str) -> Any:
        return self.owners.update_or_create(name=name, defaults={"points": 7}, create_defaults={"id": key(number)})

    def add_items(self, number: int) -> Any:
        owner = self.owners.filter(pk=key(number)).first()
        return None if owner is None else owner.items.create(label="added")

    # Reads

    def get(self, number: int) -> Any:
        return self.owners.get(pk=key(number))

    def read(self, which: str) -> Any:
        return READS[which](self)

    # Transactions

    def inner(self, program: list[Operation]) -> Any:
        results: list[Any] = []
        if len(connections[self.alias].savepoint_ids):
            self.owners.exists()  # so that each block handles its own errors, and none that waited around it
        try:
            with transaction.atomic(using=self.alias):
                self.go_through(program, results)
        except DatabaseError as error:
            return described(error)
        return results

    def inner_boom(self, program: list[Operation]) -> Any:
        try:
            with transaction.atomic(using=self.alias):
                self.go_through(program, [])
                self.owners.count()
                raise Boom
        except Boom:
            return "undone"

    def without_savepoint(self, program: list[Operation]) -> Any:
        results: list[Any] = []
        with transaction.atomic(using=self.alias, savepoint=False):
            self.go_through(program, results)
        return results

    def savepoint(self, numbers: list[int], is_undone: bool) -> Any:
        sid = transaction.savepoint(using=self.alias)
        for number in numbers:
            self.owners.create(id=key(number), name=str(number))
        if is_undone:
            self.owners.count()  # what is undone before it was sent is never sent, so its errors are never seen
            transaction.savepoint_rollback(sid, using=self.alias)
        else:
            transaction.savepoint_commit(sid, using=self.alias)
        return None

    def set_rollback(self) -> None:
        transaction.set_rollback(True, using=self.alias)

    def on_commit(self, number: int) -> None:
        transaction.on_commit(lambda: self.seen.hooks.append(number), using=self.alias)

    def boom(self) -> None:
        raise Boom("the program's own error")

    # Raw

    def raw(self, query: str, params: list[Any] | None, ask: str) -> Any:
        with connections[self.alias].cursor() as cursor:
            cursor.execute(query, params)
            return ASKS[ask](cursor)

    def one_cursor(self, queries: list[str]) -> Any:
        """Several statements on one cursor, of which only the last is asked for."""
        with connections[self.alias].cursor() as cursor:
            for query in queries:
                cursor.execute(query)
            return ASKS["all"](cursor)

    def executemany(self, numbers: list[int]) -> Any:
        with connections[self.alias].cursor() as cursor:
            cursor.executemany(
                "INSERT INTO batches_owner (id, name, points) VALUES (%s, %s, 0)",
                [(key(number), f"many {number}") for number in numbers],
            )
            return cursor.rowcount


READS: dict[str, Callable[[Run], Any]] = {
    "list": lambda run: list(run.owners.order_by("pk")),
    "values": lambda run: list(run.items.order_by("pk").values("label", "owner__name")),
    "flat": lambda run: list(run.items.order_by("pk").values_list("rank", flat=True)),
    "count": lambda run: run.items.count(),
    "exists": lambda run: run.notes.exists(),
    "aggregate": lambda run: run.owners.aggregate(models.Sum("points"), models.Max("name")),
    "in_bulk": lambda run: run.owners.in_bulk([key(1), key(2)]),
    "locked": lambda run: list(run.owners.select_for_update().order_by("pk")),
    "iterator": lambda run: list(run.owners.order_by("pk").iterator(chunk_size=1)),
    "related": lambda run: [item.owner for item in run.items.select_related("owner").order_by("pk")],
    "prefetched": lambda run: [
        list(owner.items.all()) for owner in run.owners.prefetch_related("items").order_by("pk")
    ],
    "first": lambda run: run.items.order_by("-pk").first(),
    "last": lambda run: run.notes.last(),
    "none": lambda run: list(run.owners.none()),
}
ASKS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda cursor: None,
    "rowcount": lambda cursor: cursor.rowcount,
    "description": lambda cursor: [column.name for column in cursor.description or ()],
    "status": lambda cursor: cursor.statusmessage,
    "one": lambda cursor: cursor.fetchone() if cursor.description else None,
    "many": lambda cursor: cursor.fetchmany(2) if cursor.description else None,
    "all": lambda cursor: cursor.fetchall() if cursor.description else cursor.rowcount,
    "rows": lambda cursor: list(cursor) if cursor.description else None,
    "fetch": lambda cursor: cursor.fetchall(),
    "sets": lambda cursor: [ASKS["all"](cursor), cursor.nextset(), ASKS["all"](cursor)],
}
