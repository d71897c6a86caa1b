"""The SQL of our compilers is Django's, also when its columns were written before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import (
    Count,
    Exists,
    F,
    FilteredRelation,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
)
from django.db.models.expressions import Col

from dbresilience import columns, compilers
from tests.dbresilience.compiling import compiled


def of_fields(queryset: QuerySet[Any], *fields: str) -> QuerySet[Any]:
    queryset.query.clear_select_clause()
    queryset.query.add_fields(fields)
    return queryset


def under_another_name(queryset: QuerySet[Any]) -> QuerySet[Any]:
    queryset.query.change_aliases({queryset.query.get_initial_alias(): "U0"})
    return queryset


QUERIES: dict[str, Callable[[], QuerySet[Any]]] = {
    "plain": lambda: User.objects.filter(username="a"),
    "of some fields": lambda: of_fields(User.objects.all(), "username"),
    "under another name": lambda: under_another_name(User.objects.filter(username="a")),
    "joined": lambda: User.objects.filter(groups__permissions__codename="a"),
    "joined twice": lambda: User.objects.filter(groups__name="a").filter(groups__name="b").order_by("groups__name"),
    "related": lambda: Permission.objects.select_related("content_type").order_by("content_type__app_label"),
    "what is related": lambda: Permission.objects.order_by("pk"),
    "a subquery on the same table": lambda: User.objects.filter(pk__in=User.objects.filter(is_staff=True)),
    "correlated": lambda: User.objects.filter(Exists(Group.objects.filter(user=OuterRef("pk")))),
    "correlated, a value": lambda: User.objects.annotate(
        first=Subquery(Group.objects.filter(user=OuterRef("pk")).values("name")[:1])
    ),
    "extra": lambda: User.objects.extra(select={"username": "1", "last_name": "2"}).order_by("username"),
    "an alias": lambda: User.objects.alias(email_of=F("email")).filter(email_of="a"),
    "an annotation with the name of a table": lambda: User.objects.annotate(auth_group=F("groups__name")),
    "a relation with a filter": lambda: User.objects.annotate(
        chosen=FilteredRelation("groups", condition=Q(groups__name="a"))
    ).filter(chosen__name="a"),
    "a relation named like a column": lambda: User.objects.annotate(
        codename=FilteredRelation("groups", condition=Q(groups__name="a"))
    ).filter(codename__name="a", user_permissions__codename="b"),
    "a relation named like another table": lambda: User.objects.annotate(
        auth_permission=FilteredRelation("groups", condition=Q(groups__name="a"))
    ).filter(auth_permission__name="a"),
    "grouped": lambda: User.objects.values("is_staff").annotate(groups_of=Count("groups")).order_by("is_staff"),
    "some columns": lambda: User.objects.only("username").exclude(groups__name="a"),
    "united": lambda: User.objects.filter(pk=1).union(User.objects.filter(pk=2)).order_by("username"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_the_sql_is_djangos(name: str) -> None:
    for each in QUERIES.values():
        compiled(each())  # of which nothing may be cached that is true of one of them only

    compiled(QUERIES[name]())


def test_a_column_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    users = User.objects.filter(username="a")
    sql = str(users.query)
    written: list[str] = []

    def write(column: Col, compiler: Any, connection: Any) -> tuple[str, list[Any]]:
        written.append(column.target.column)
        return "?", []

    monkeypatch.setattr(Col, "as_sql", write)

    assert str(users.query) == sql
    assert written == []


def test_what_is_returned_belongs_to_the_caller() -> None:
    compiler = User.objects.all().query.get_compiler(connection=connection)
    column = User._meta.pk.get_col("auth_user")
    compiler.query.get_initial_alias()

    _, parameters = compiler.compile(column)
    if isinstance(parameters, list):
        parameters.append("a")

    assert compiler.compile(column) == ('"auth_user"."id"', type(parameters)())


def test_no_more_columns_are_remembered_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "MOST_COLUMNS", 3)
    ours = compilers.our_compilers.__wrapped__(connection.ops.compiler_module, type(connection.ops))

    sql, _ = ours.SQLCompiler(User.objects.all().query, connection, connection.alias).as_sql()

    assert sql == str(User.objects.all().query)
    assert 0 < len(ours.SQLCompiler.columns) <= 3


def test_every_compiler_is_ours_and_each_remembers_for_itself() -> None:
    ours = [
        connection.ops.compiler(name)
        for name in (
            "SQLCompiler",
            "SQLInsertCompiler",
            "SQLUpdateCompiler",
            "SQLDeleteCompiler",
            "SQLAggregateCompiler",
        )
    ]

    assert all(issubclass(each, columns.ColumnsMixin) for each in ours)
    assert len({id(each.columns) for each in ours}) == len(ours)  # type: ignore[attr-defined]
