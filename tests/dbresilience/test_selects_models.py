"""selects.py: models of several tables, fields with a say in their columns, and what changes under way."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from copy import copy
from typing import Any

import pytest
from django.db import connection
from django.db.models import (
    CASCADE,
    SET_NULL,
    BooleanField,
    CharField,
    ForeignKey,
    IntegerField,
    OneToOneField,
    QuerySet,
    Value,
)
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.db.models.sql.datastructures import Join
from django.test.utils import isolate_apps

from chat.models import Message
from tests.dbresilience.compiling import Part, Shouted, compiled, is_cached


@isolate_apps("tests")
def test_a_table_or_field_or_order_that_is_another_since() -> None:
    class Owner(Part):
        name = CharField(max_length=1)

    class Noted(Part):
        name = CharField(max_length=1)
        owner = ForeignKey("Owner", on_delete=CASCADE)

    alone, related = QuerySet(Noted).filter(name="a"), QuerySet(Noted).filter(name="a").select_related("owner")
    changes: list[Callable[[], object]] = [
        lambda: CharField(max_length=1).contribute_to_class(Noted, "late"),
        lambda: CharField(max_length=1).contribute_to_class(Owner, "later"),
        lambda: setattr(Noted._meta, "ordering", ["-name"]),
        lambda: setattr(Noted._meta, "ordering", ["owner"]),
        lambda: setattr(Owner._meta, "ordering", ["name"]),
        lambda: setattr(Noted._meta, "ordering", []),
        lambda: setattr(Owner._meta, "db_table", "another"),
        lambda: setattr(Noted._meta, "db_table", "one_more"),
    ]
    assert is_cached(alone)
    assert is_cached(related)
    for change in changes:
        change()
        for _ in range(2):
            compiled(QuerySet(Noted).filter(name="a"))
            compiled(QuerySet(Noted).filter(name="a").select_related("owner"))
            compiled(QuerySet(Noted))


class Restricted(ForeignKey):  # type: ignore[type-arg]
    """A relation to some rows only."""

    wanted = True

    def get_extra_restriction(self, alias: Any, related_alias: Any) -> Any:
        field = self.model._meta.get_field("is_wanted")
        return Exact(field.get_col(alias), type(self).wanted)


@isolate_apps("tests")
def test_what_fields_decide_is_asked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Owner(Part):
        name = Shouted(max_length=1)
        is_wanted = BooleanField()

    class Noted(Part):
        name = CharField(max_length=1)
        is_wanted = BooleanField()
        owner = ForeignKey("Owner", on_delete=CASCADE, related_name="+")
        other = Restricted("Noted", on_delete=CASCADE, related_name="+")

    for word, wanted in (("upper", True), ("lower", False)):
        monkeypatch.setattr(Shouted, "word", word)
        monkeypatch.setattr(Restricted, "wanted", wanted)
        for relation in ("owner", "other"):
            assert not is_cached(QuerySet(Noted).filter(name="a").select_related(relation))


@isolate_apps("tests")
def test_two_relations_to_one_table_are_two() -> None:
    class Owner(Part):
        name = CharField(max_length=1)

    class Noted(Part):
        one = ForeignKey("Owner", on_delete=CASCADE, related_name="+")
        other = ForeignKey("Owner", on_delete=CASCADE, related_name="+")

    for condition in ("one", "other", "one"):  # which leaves an alias of that relation behind
        assert is_cached(QuerySet(Noted).filter(**{condition: 1}).select_related("other"))


@isolate_apps("tests")
def test_parameters_elsewhere_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):
        of = ForeignKey("self", on_delete=CASCADE)

    join = Join.as_sql

    def as_sql(self: Any, compiler: Any, connection: Any) -> Any:
        text, params = join(self, compiler, connection)
        return f"{text} AND %s", [*params, True]

    monkeypatch.setattr(Join, "as_sql", as_sql)

    assert not is_cached(QuerySet(Noted).select_related("of").filter(pk=1))


@isolate_apps("tests")
def test_models_of_several_tables_are_joined_each_time() -> None:
    class Noted(Part):
        name = CharField(max_length=1)

    class Child(Noted):
        more = CharField(max_length=1)

    class Proxy(Noted):
        class Meta:
            app_label = "tests"
            proxy = True

    class Holder(Part):
        child = OneToOneField("Child", on_delete=CASCADE, related_name="holder")
        name = CharField(max_length=1)
        of = ForeignKey("self", null=True, on_delete=SET_NULL)

    assert is_cached(QuerySet(Noted).filter(name="a"))
    assert is_cached(QuerySet(Proxy).filter(name="a"))
    assert compiled(QuerySet(Proxy).filter(name="a"))[0].klass_info["model"] is Proxy
    assert not is_cached(QuerySet(Child).filter(name="a"))
    assert not is_cached(QuerySet(Holder).filter(name="a").select_related("child"))
    assert not is_cached(QuerySet(Noted).filter(name="a").select_related("child__holder"))
    assert is_cached(QuerySet(Holder).filter(name="a").select_related("of__of"))


class Translated(CharField):  # type: ignore[type-arg]
    """A field whose column is that of another."""

    language = "en"

    def get_col(self, alias: Any, output_field: Any = None) -> Any:
        return self.model._meta.get_field(f"title_{Translated.language}").get_col(alias)


class Translating(CharField):  # type: ignore[type-arg]
    """The same, said elsewhere."""

    @property
    def cached_col(self) -> Any:
        return self.model._meta.get_field(f"title_{Translated.language}").cached_col


@isolate_apps("tests")
@pytest.mark.parametrize("field", [Translated, Translating])
def test_a_field_may_choose_its_column(field: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):
        title = field(max_length=1)
        title_en = CharField(max_length=1)
        title_de = CharField(max_length=1)

    for language in ("en", "de"):
        monkeypatch.setattr(Translated, "language", language)
        for queryset in (QuerySet(Noted), QuerySet(Noted).filter(pk=1)):
            for _ in range(2):
                mine, _ = compiled(queryset)
                assert mine.as_sql()[0].count(f"title_{language}") == 2


class Converted(IntegerField):  # type: ignore[type-arg]
    """A field whose values are converted for some databases."""

    converts = False

    def get_db_converters(self, connection: Any) -> list[Any]:
        return [lambda value, *of: value] if self.converts else []


@isolate_apps("tests")
def test_values_may_be_converted_for_some_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    class Noted(Part):
        number = Converted()

    for converts in (False, True):
        monkeypatch.setattr(Converted, "converts", converts)
        for queryset in (QuerySet(Noted), QuerySet(Noted).filter(pk=1)):
            for _ in range(2):
                mine, _ = compiled(queryset)
                assert bool(mine.get_converters([column for column, _, _ in mine.select])) is converts


@isolate_apps("tests")
@pytest.mark.parametrize("comes_first", [False, True])
def test_a_column_may_be_named_like_an_alias_that_a_filter_leaves(comes_first: bool) -> None:
    class Noted(Part):
        name = CharField(max_length=1, db_column="T2")
        parent = ForeignKey("self", on_delete=CASCADE)

    odd, plain = QuerySet(Noted).filter(parent__pk=1), QuerySet(Noted).filter(pk=1)
    for queryset in (odd, plain, odd) if comes_first else (plain, odd, plain):
        compiled(queryset)
        compiled(QuerySet(Noted).select_related("parent__parent").filter(name="a"))
    assert is_cached(plain)


@isolate_apps("tests")
def test_a_condition_on_no_column_leaves_the_table_to_others() -> None:
    class Noted(Part):
        name = CharField(max_length=1)

    compiled(QuerySet(Noted).filter(Exact(Value(1), 1)))
    assert is_cached(QuerySet(Noted).filter(pk=1))


@isolate_apps("tests")
def test_another_class_may_have_a_copy_of_what_a_model_knows() -> None:
    class Noted(Part):
        name = CharField(max_length=1)

    assert is_cached(QuerySet(Noted).filter(name="a"))
    for year in (2024, 2025):
        of_a_year = type(f"Noted{year}", (), {"_meta": copy(Noted._meta), "__qualname__": f"Noted{year}"})
        of_a_year._meta.db_table = f"noted_{year}"  # type: ignore[attr-defined]
        query = Query(of_a_year)
        for _ in range(2):
            text, _ = query.clone().get_compiler(connection=connection).as_sql()
            assert text.endswith(f'FROM "noted_{year}"')
    Noted._meta = copy(Noted._meta)
    Noted._meta.db_table = "noted_now"
    compiled(QuerySet(Noted).filter(name="a"))
    shares = type("Shares", (), {"_meta": Noted._meta, "__qualname__": "Shares"})
    query = QuerySet(Noted).filter(name="a").query
    query.model = shares
    compiler = query.get_compiler(connection=connection)
    compiler.as_sql()
    assert compiler.klass_info["model"] is shares


def test_what_is_to_be_joined_may_be_told_in_other_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    class Related(dict[str, Any]):
        pass

    queryset = Message.objects.select_related("thread__owner").filter(role="user")
    assert is_cached(queryset)
    queryset.query.select_related = Related(thread={})
    assert not is_cached(queryset)
    queryset.query.select_related = True
    for depth in (1, 2, 1):
        monkeypatch.setattr(Query, "max_depth", depth)
        for _ in range(2):
            compiled(queryset)


def test_models_that_are_gone_are_let_go() -> None:
    with isolate_apps("tests") as apps:

        class Owner(Part):
            name = CharField(max_length=1)

        class Profile(Part):
            owner = OneToOneField("Owner", on_delete=CASCADE, related_name="profile")

        assert is_cached(QuerySet(Owner).filter(pk=1))
        assert is_cached(QuerySet(Owner).filter(pk=1).select_related("profile"))
        gone = weakref.ref(Profile)
        del apps.all_models["tests"]["profile"], Owner.profile, Profile  # type: ignore[attr-defined]
        apps.clear_cache()
        assert is_cached(QuerySet(Owner).filter(pk=1))
        gc.collect()
    assert gone() is None
