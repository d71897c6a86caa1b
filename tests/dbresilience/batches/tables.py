"""What the programs of this folder work on: keys made by the client and by the server, and every kind of constraint."""

from __future__ import annotations

from typing import Any

from django.apps.registry import Apps
from django.db import models

# A registry of their own, so that no other test meets these tables; relations need one that knows its application.
_APPS = Apps(["tests.dbresilience.batches"])


class Owner(models.Model):
    id = models.UUIDField(primary_key=True)
    name = models.CharField(max_length=20, unique=True)
    points = models.IntegerField(default=0)

    class Meta:
        apps = _APPS
        app_label = "batches"
        constraints = [models.CheckConstraint(condition=models.Q(points__gte=0), name="points_are_positive")]

    def __str__(self) -> str:
        return self.name


class Item(models.Model):
    owner = models.ForeignKey(Owner, models.CASCADE, null=True, related_name="items")
    label = models.CharField(max_length=20)
    rank = models.IntegerField(null=True)

    class Meta:
        apps = _APPS
        app_label = "batches"
        constraints = [
            models.UniqueConstraint(fields=["rank"], name="one_of_a_rank", deferrable=models.Deferrable.DEFERRED)
        ]

    def __str__(self) -> str:
        return self.label


class Note(models.Model):
    item = models.ForeignKey(Item, models.SET_NULL, null=True, related_name="notes")
    owner = models.ForeignKey(Owner, models.PROTECT, null=True)
    text = models.CharField(max_length=20)

    class Meta:
        apps = _APPS
        app_label = "batches"

    def __str__(self) -> str:
        return self.text


TABLES = (Owner, Item, Note)


def create_tables(wrapper: Any) -> None:
    with wrapper.schema_editor() as editor:
        for model in TABLES:
            editor.create_model(model)


def empty_tables(wrapper: Any) -> None:
    names = ", ".join(model._meta.db_table for model in TABLES)
    with wrapper.cursor() as cursor:
        cursor.execute(f"TRUNCATE {names} RESTART IDENTITY CASCADE; DROP TABLE IF EXISTS made_here")


def rows_of(wrapper: Any) -> list[list[tuple[Any, ...]]]:
    """All that is stored."""
    return [list(model._default_manager.using(wrapper.alias).order_by("pk").values_list()) for model in TABLES]
