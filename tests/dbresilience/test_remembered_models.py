"""columns.py: what it remembers of a model's columns, and what it asks Django each time."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import (
    CASCADE,
    CharField,
    Exists,
    FilteredRelation,
    ForeignKey,
    IntegerField,
    JSONField,
    OuterRef,
    Q,
    QuerySet,
)
from django.db.models.expressions import Col
from django.test.utils import isolate_apps
from django.utils.functional import cached_property

from tests.dbresilience.compiling import Part, compiled


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


@isolate_apps("tests")
@pytest.mark.parametrize("field", [Shouted, Secret])
def test_what_its_field_decides_is_asked_each_time(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):  # only its SQL matters
        name = field(max_length=1)

    for word in ("upper", "lower"):
        monkeypatch.setattr(Shouted, "word", word)
        mine, _ = compiled(QuerySet(Noted))
        assert word in mine.as_sql()[0]


@isolate_apps("tests")
def test_tables_that_are_joined_for_a_model_are() -> None:
    class Noted(Part):  # only its SQL matters
        name = CharField(max_length=1)

    class Child(Noted):  # only its SQL matters
        more = CharField(max_length=1)

    class Proxy(Noted):  # only its SQL matters
        class Meta:
            app_label = "tests"
            proxy = True

    for model in (Noted, Child, Proxy) * 2:
        compiled(QuerySet(model))


@isolate_apps("tests")
@pytest.mark.parametrize("is_around_another", [False, True])
def test_a_relation_may_be_named_like_a_column(is_around_another: bool) -> None:
    """Of its query, and of one within it that refers to it: whatever is compiled first, it spoils nothing."""

    class Other(Part):  # only its SQL matters
        name = CharField(max_length=1)

    class Noted(Part):  # only its SQL matters
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
    class Noted(Part):  # only its SQL matters
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
    class Noted(Part):  # only its SQL matters
        number = IntegerField()
        notes = JSONField()

    class Counted(Part):  # only its SQL matters
        number = IntegerField()

    for _ in range(2):
        mine, theirs = compiled(QuerySet(Noted))
        columns = [column for column, _, _ in mine.select]
        for each in (columns, columns[1:]):
            assert list(mine.get_converters(each)) == list(theirs.get_converters(each)) != []
        mine, _ = compiled(QuerySet(Counted))
        assert mine.get_converters([column for column, _, _ in mine.select]) == {}
        assert list(mine.get_converters(columns)) == [2]
