"""The SQL of our compilers is Django's, also when its columns were written before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.db.models import (
    CASCADE,
    CharField,
    Count,
    Exists,
    F,
    FilteredRelation,
    ForeignKey,
    IntegerField,
    JSONField,
    Model,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
)
from django.db.models.expressions import Col
from django.test.utils import isolate_apps
from django.utils.functional import cached_property

from dbresilience import compilers


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


def sql_of(queryset: QuerySet[Any], module: Any) -> tuple[str, Any]:
    return module.SQLCompiler(queryset.query.clone(), connection, connection.alias).as_sql()  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", QUERIES)
def test_the_sql_is_djangos(name: str) -> None:
    ours, djangos = connection.ops._cache, import_module(connection.ops.compiler_module)  # type: ignore[attr-defined]

    for each in QUERIES.values():
        sql_of(each(), ours)  # which are to remember nothing that is true of themselves only

    assert sql_of(QUERIES[name](), ours) == sql_of(QUERIES[name](), djangos)


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


def test_what_one_query_does_to_its_columns_is_not_seen_by_others() -> None:
    def compiled() -> Any:
        compiler = User.objects.all().query.get_compiler(connection=connection)
        compiler.setup_query()
        return compiler

    compiled()
    one = compiled()
    for _, (_, parameters), _ in one.select:
        if isinstance(parameters, list):
            parameters.append("a")
    one.select.clear()
    one.klass_info["select_fields"].clear()

    other = compiled()
    assert not any(parameters for _, (_, parameters), _ in other.select)
    assert len(other.select) == len(other.klass_info["select_fields"]) == len(User._meta.concrete_fields)


def test_a_field_that_comes_later_is_selected() -> None:
    str(User.objects.all().query)
    late = CharField(max_length=1)
    late.contribute_to_class(User, "late")
    try:
        assert '"auth_user"."late"' in str(User.objects.all().query)
    finally:
        User._meta.local_fields.remove(late)
        User._meta._expire_cache()
        del User.late

    assert "late" not in str(User.objects.all().query)


class Shouted(CharField):  # type: ignore[type-arg]
    """A column with a word of its own around it."""

    word = "upper"

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return f"{self.word}({sql})", params


class Whispered(Col):
    """The same, said by the column."""

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        sql, params = super().as_sql(compiler, connection)
        return f"{Shouted.word}({sql})", params


class Secret(CharField):  # type: ignore[type-arg]
    """A field that makes its columns itself."""

    @cached_property
    def cached_col(self) -> Col:
        return Whispered(self.model._meta.db_table, self)


class Part(Model):
    """A model of no application."""

    class Meta:
        abstract = True
        app_label = "tests"


def compiled(queryset: QuerySet[Any]) -> tuple[Any, Any]:
    """Return our compiler and Django's, once both have compiled."""
    ours, djangos = connection.ops._cache, import_module(connection.ops.compiler_module)  # type: ignore[attr-defined]
    mine, theirs = (
        module.SQLCompiler(queryset.query.clone(), connection, connection.alias) for module in (ours, djangos)
    )
    assert mine.as_sql() == theirs.as_sql()
    return mine, theirs


@isolate_apps("tests")
@pytest.mark.parametrize("field", [Shouted, Secret])
def test_what_its_field_decides_is_asked_each_time(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):  # noqa: DJ008  # only its SQL matters
        name = field(max_length=1)

    for word in ("upper", "lower"):
        monkeypatch.setattr(Shouted, "word", word)
        mine, _ = compiled(QuerySet(Noted))
        assert word in mine.as_sql()[0]


@isolate_apps("tests")
def test_tables_that_are_joined_for_a_model_are() -> None:
    class Noted(Part):  # noqa: DJ008  # only its SQL matters
        name = CharField(max_length=1)

    class Child(Noted):  # noqa: DJ008  # only its SQL matters
        more = CharField(max_length=1)

    class Proxy(Noted):  # noqa: DJ008  # only its SQL matters
        class Meta:
            app_label = "tests"
            proxy = True

    for model in (Noted, Child, Proxy) * 2:
        compiled(QuerySet(model))


@isolate_apps("tests")
def test_a_relation_may_be_named_like_a_column() -> None:
    class Other(Part):  # noqa: DJ008  # only its SQL matters
        name = CharField(max_length=1)

    class Noted(Part):  # noqa: DJ008  # only its SQL matters
        name = CharField(max_length=1, db_column="title")
        other = ForeignKey("Other", on_delete=CASCADE)

    odd = (
        QuerySet(Noted).annotate(title=FilteredRelation("other", condition=Q(other__name="a"))).filter(title__name="b")
    )
    for _ in range(2):
        compiled(odd)
        compiled(QuerySet(Noted))


@isolate_apps("tests")
def test_a_column_may_be_named_like_a_relation_around_its_query() -> None:
    class Other(Part):  # noqa: DJ008  # only its SQL matters
        name = CharField(max_length=1)

    class Noted(Part):  # noqa: DJ008  # only its SQL matters
        name = CharField(max_length=1, db_column="heading")
        other = ForeignKey("Other", on_delete=CASCADE)

    other = FilteredRelation("other", condition=Q(other__name="a"))
    same_name = QuerySet(Noted).filter(name=OuterRef("name"))
    odd = QuerySet(Noted).annotate(heading=other).filter(heading__name="b").filter(Exists(same_name))
    for _ in range(2):
        compiled(odd)
        compiled(QuerySet(Noted).filter(name="c"))


@isolate_apps("tests")
def test_what_is_remembered_goes_with_its_model() -> None:
    class Noted(Part):  # noqa: DJ008  # only its SQL matters
        name = CharField(max_length=1)

    compiled(QuerySet(Noted))
    compiled(QuerySet(Noted))
    meta = weakref.ref(Noted._meta)
    Noted._meta.apps.all_models["tests"].clear()
    Noted._meta.apps.clear_cache()
    del Noted
    gc.collect()

    assert meta() is None


@isolate_apps("tests")
def test_values_are_converted_each_time() -> None:
    class Noted(Part):  # noqa: DJ008  # only its SQL matters
        number = IntegerField()
        notes = JSONField()

    class Counted(Part):  # noqa: DJ008  # only its SQL matters
        number = IntegerField()

    for _ in range(2):
        mine, theirs = compiled(QuerySet(Noted))
        columns = [column for column, _, _ in mine.select]
        for each in (columns, columns[1:]):
            assert list(mine.get_converters(each)) == list(theirs.get_converters(each)) != []
        mine, _ = compiled(QuerySet(Counted))
        assert mine.get_converters([column for column, _, _ in mine.select]) == {}
        assert list(mine.get_converters(columns)) == [2]


def test_no_more_columns_are_remembered_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compilers, "MOST_COLUMNS", 3)
    ours = compilers.our_compilers.__wrapped__(connection.ops.compiler_module, type(connection.ops))

    sql, _ = sql_of(User.objects.all(), ours)

    assert sql == sql_of(User.objects.all(), connection.ops._cache)[0]  # type: ignore[attr-defined]
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

    assert all(issubclass(each, compilers.ColumnsMixin) for each in ours)
    assert len({id(each.columns) for each in ours}) == len(ours)  # type: ignore[attr-defined]
