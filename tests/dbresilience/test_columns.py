"""columns.py: what it caches of a model's columns, and what it asks Django each time."""

from __future__ import annotations

import gc
import sys
import weakref
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import (
    CASCADE,
    CharField,
    Exists,
    F,
    FilteredRelation,
    ForeignKey,
    GeneratedField,
    IntegerField,
    JSONField,
    OuterRef,
    Q,
    QuerySet,
)
from django.db.models.expressions import Col
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import isolate_apps
from django.utils.functional import cached_property

from dbresilience.compilers import our_compilers
from tests.dbresilience.compiling import Part, Shouted, compiled, our_and_djangos_compilers


def test_what_one_query_does_to_its_columns_is_not_seen_by_others() -> None:
    def set_up() -> Any:
        compiler = User.objects.all().query.get_compiler(connection=connection)
        compiler.setup_query()
        return compiler

    set_up()
    one = set_up()
    for _, (_, parameters), _ in one.select:
        if isinstance(parameters, list):
            parameters.append("a")
    one.select.clear()
    one.klass_info["select_fields"].clear()

    other = set_up()
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


@isolate_apps("tests")
@pytest.mark.parametrize("field", [Shouted, Secret])
def test_what_its_field_decides_is_asked_each_time(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):
        name = field(max_length=1)

    for word in ("upper", "lower"):
        monkeypatch.setattr(Shouted, "word", word)
        mine, _ = compiled(QuerySet(Noted))
        assert word in mine.as_sql()[0]


@isolate_apps("tests")
def test_tables_that_are_joined_for_a_model_are() -> None:
    class Noted(Part):
        name = CharField(max_length=1)

    class Child(Noted):
        more = CharField(max_length=1)

    class Proxy(Noted):
        class Meta:
            app_label = "tests"
            proxy = True

    for model in (Noted, Child, Proxy) * 2:
        compiled(QuerySet(model))


@isolate_apps("tests")
@pytest.mark.parametrize("is_around_another", [False, True])
def test_a_relation_may_be_named_like_a_column(is_around_another: bool) -> None:
    """Of its query, and of one within it that refers to it: whatever is compiled first, it spoils nothing."""

    class Other(Part):
        name = CharField(max_length=1)

    class Noted(Part):
        # A column that no other test has written before.
        name = CharField(max_length=1, db_column=f"title_{is_around_another}")
        other = ForeignKey("Other", on_delete=CASCADE)

    relation = {f"title_{is_around_another}": FilteredRelation("other", condition=Q(other__name="a"))}
    odd = QuerySet(Noted).annotate(**relation).filter(**{f"title_{is_around_another}__name": "b"})
    if is_around_another:
        odd = odd.filter(Exists(QuerySet(Noted).filter(name=OuterRef("name"))))
    for _ in range(2):
        compiled(odd)
        compiled(QuerySet(Noted).filter(name="c"))


@isolate_apps("tests")
def test_what_is_remembered_goes_with_its_model() -> None:
    class Noted(Part):
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
    class Noted(Part):
        number = IntegerField()
        notes = JSONField()

    class Counted(Part):
        number = IntegerField()

    for _ in range(2):
        mine, theirs = compiled(QuerySet(Noted))
        columns = [column for column, _, _ in mine.select]
        for each in (columns, columns[1:]):
            assert list(mine.get_converters(each)) == list(theirs.get_converters(each)) != []
        mine, _ = compiled(QuerySet(Counted))
        assert mine.get_converters([column for column, _, _ in mine.select]) == {}
        assert list(mine.get_converters(columns)) == [2]


@isolate_apps("tests")
def test_what_the_server_generates_is_a_column_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):
        number = IntegerField()
        twice = GeneratedField(expression=F("number") * 2, output_field=IntegerField(), db_persist=True)

    compiled(QuerySet(Noted))
    monkeypatch.setattr(SQLCompiler, "get_select", None)
    ours, _ = our_and_djangos_compilers()
    text, _ = ours.SQLCompiler(QuerySet(Noted).query, connection, connection.alias).as_sql()
    assert '"twice" FROM' in text


@isolate_apps("tests")
def test_an_engine_may_convert_values_itself() -> None:
    class Noted(Part):
        number = IntegerField()

    class TheirCompiler(SQLCompiler):
        def get_converters(self, expressions: Any) -> Any:
            return super().get_converters(expressions) | {0: ([str], expressions[0])}

    module = ModuleType("their_compilers")
    module.SQLCompiler = TheirCompiler  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, {"their_compilers": module}):
        ours = our_compilers("their_compilers", type(connection.ops))
    for _ in range(3):
        compiler = ours.SQLCompiler(QuerySet(Noted).query, connection, connection.alias)
        compiler.as_sql()
        assert 0 in compiler.get_converters([column for column, _, _ in compiler.select])
