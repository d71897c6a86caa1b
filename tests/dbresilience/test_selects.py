"""selects.py: a SELECT of the cache has Django's text, and leaves the compiler and the query as Django does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Group, Permission, User
from django.db.models import Count, F, Func, IntegerField, Q, QuerySet, Window
from django.db.models.functions import Lower, RowNumber
from django.db.models.lookups import GreaterThan
from django.db.models.sql.compiler import SQLCompiler
from django.db.models.sql.constants import INNER, LOUTER
from hypothesis import given, settings
from hypothesis import strategies as st
from rest_framework.authtoken.models import Token

from chat.models import Message
from dbresilience.select_keys import key_of
from tests.dbresilience.compiling import compiled, is_cached


def with_all_that_is_related(queryset: QuerySet[Any]) -> QuerySet[Any]:
    queryset.query.select_related = True  # as `select_related()` does, which Django 6.1 warns of
    return queryset


CACHED: dict[str, Callable[[], QuerySet[Any]]] = {
    "by a key": lambda: User.objects.filter(pk=1),
    "by several": lambda: User.objects.filter(Q(username="a") | ~Q(email="b"), is_staff=True).exclude(pk=3),
    "by a relation": lambda: Message.objects.filter(thread="00000000-0000-0000-0000-000000000001"),
    "in an order": lambda: Message.objects.filter(content="%s").order_by("-pk", "role")[:20],
    "in the order of the model": lambda: LogEntry.objects.filter(action_flag=1),
    "in no order": lambda: LogEntry.objects.filter(action_flag=1).order_by(),
    "a page": lambda: User.objects.filter(is_staff=True).order_by("username")[20:40],
    "the rest": lambda: User.objects.filter(is_staff=True).order_by("username")[20:],
    "what is related": lambda: Token.objects.select_related("user").filter(key="a"),
    "what is related, by it": lambda: Message.objects.filter(thread=1).select_related("thread"),
    "what is related to that": lambda: Message.objects.select_related("thread__owner", "author").filter(role="user"),
    "what belongs to it": lambda: Message.objects.select_related("reply", "in_reply_to__thread").filter(role="user"),
    "all that is related": lambda: with_all_that_is_related(Token.objects.filter(key="a")),
    "some computed": lambda: User.objects.filter(username=Lower("email")),
}

NOT_CACHED: dict[str, Callable[[], QuerySet[Any]]] = {
    "joined": lambda: User.objects.filter(groups__name="a"),
    "joined in the order": lambda: Message.objects.filter(role="user").order_by("thread__title"),
    "in the order of a relation": lambda: Permission.objects.filter(name="a").order_by("content_type"),
    "in the order of a key": lambda: Message.objects.filter(role="user").order_by("-thread_id"),
    "the other way round": lambda: User.objects.filter(pk=1).order_by("username").reverse(),
    "in no order at all": lambda: User.objects.filter(pk=1).order_by("?"),
    "in a computed order": lambda: User.objects.filter(pk=1).order_by(Lower("username")),
    "in an order with a word about nothing": lambda: User.objects.filter(pk=1).order_by(
        F("email").asc(nulls_last=True)
    ),
    "some columns": lambda: User.objects.filter(pk=1).values("pk", "username"),
    "a few columns": lambda: User.objects.filter(pk=1).only("username"),
    "all but some": lambda: User.objects.filter(pk=1).defer("username"),
    "computed": lambda: User.objects.filter(pk=1).annotate(number=Count("groups")),
    "with an alias": lambda: User.objects.alias(name=Lower("username")).filter(name="a"),
    "without repetition": lambda: User.objects.filter(pk=1).distinct(),
    "one of each": lambda: User.objects.filter(pk=1).distinct("email").order_by("email"),
    "with words of its own": lambda: User.objects.filter(pk=1).extra(where=["1 = 1"], order_by=["username"]),
    "of more tables": lambda: User.objects.filter(pk=1).extra(tables=["auth_group"]),
    "united": lambda: User.objects.filter(pk=1).union(User.objects.filter(pk=2)),
    "with a query in it": lambda: User.objects.filter(pk__in=Group.objects.filter(name="a").values("pk")),
    "without a condition": lambda: Group.objects.order_by("-name"),
}


@pytest.mark.parametrize("name", CACHED)
def test_it_is_cached(name: str) -> None:
    assert is_cached(CACHED[name]())


@pytest.mark.parametrize("name", NOT_CACHED)
def test_it_is_not_cached(name: str) -> None:
    assert not is_cached(NOT_CACHED[name]())


@pytest.mark.django_db
def test_locks_are_told() -> None:
    assert is_cached(User.objects.filter(pk=1))
    assert not is_cached(User.objects.filter(pk=1).select_for_update(of=("self",), no_key=True))


@pytest.mark.parametrize("asked", [{"with_limits": False}, {"with_col_aliases": True}])
def test_a_part_of_another_query_is_djangos(asked: dict[str, bool]) -> None:
    queryset = User.objects.filter(pk=1).order_by("pk")[:3]
    assert is_cached(queryset)

    compiled(queryset, asked=asked)


def test_what_nothing_converts_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_cached(Token.objects.select_related("user").filter(key="b"))
    mine, _ = compiled(Token.objects.select_related("user").filter(key="c"))
    monkeypatch.delattr(SQLCompiler, "get_converters")

    assert mine.get_converters([column for column, _, _ in mine.select]) == {}


def test_what_is_cached_serves_a_query_without_a_condition() -> None:
    ordered = User.objects.order_by("-email")
    compiled(ordered.filter(pk=1))
    mine, _ = compiled(ordered)
    assert "WHERE" not in mine.as_sql()[0]


def test_a_condition_that_is_always_true_or_never() -> None:
    for _ in range(2):
        compiled(Group.objects.filter(~Q(pk__in=[])).order_by("-pk"))  # tells nothing of the others
        assert is_cached(Group.objects.filter(pk=1).order_by("-pk"))
        mine, _ = compiled(Group.objects.filter(pk__in=[]).order_by("-pk"))
        assert mine.select
    for order in ("-pk", "pk"):  # one that is kept, and one that is not yet
        mine, _ = compiled(Group.objects.filter(pk__in=[]).order_by(order), elide_empty=False)
        assert "0 = 1" in mine.as_sql()[0]


def test_a_relation_that_was_looked_through_before_is_joined_as_djangos() -> None:
    """Where a filter has left an alias behind, `select_related` takes it, with its kind of join, or another."""
    replies = Message.objects.select_related("in_reply_to__author", "author", "thread")
    for queryset in (
        replies.filter(in_reply_to=None),
        replies.filter(in_reply_to__isnull=True),
        replies.exclude(author=1),
        replies.filter(Q(in_reply_to=None) | Q(author=2)),
        replies.filter(thread=1, author=1),
        replies.filter(role="user"),
    ) * 2:
        compiled(queryset)
    of_authors = Message.objects.select_related("author")
    inner, outer, renamed = of_authors.filter(author=1), of_authors.exclude(author=1), of_authors.filter(author=1)
    renamed.query.change_aliases({"auth_user": "T9"})  # as `|` may do
    assert {inner.query.alias_map["auth_user"].join_type, outer.query.alias_map["auth_user"].join_type} == {
        INNER,
        LOUTER,
    }
    for queryset in (inner, outer, renamed) * 2:
        compiled(queryset)


@pytest.mark.django_db
def test_what_is_derived_of_a_queryset_that_was_evaluated_is_djangos() -> None:
    """Django leaves in a query what it has joined for it; where another begins, it takes that."""
    for _ in range(2):
        everybody, related = User.objects.order_by("email"), Message.objects.select_related("thread__owner", "author")
        asked = related.filter(content="a")
        compiled(User.objects.filter(pk=1).order_by("email"))
        for queryset in (everybody, asked):
            list(queryset)
            assert queryset.query.base_table == queryset.model._meta.db_table
        compiled(everybody.filter(pk=1))
        compiled(asked.filter(author__username="x"))
        compiled(asked | related.filter(author__username="x"))
        compiled(asked.filter(thread__title="y").order_by("author__email"))


def test_a_condition_may_look_at_what_is_selected() -> None:
    class Number(Func):
        def as_sql(self, compiler: Any, connection: Any, **kwargs: Any) -> Any:
            return "%s", [len(compiler.select) + compiler.klass_info["select_fields"][0] + compiler.col_count]

    for _ in range(2):
        compiled(User.objects.filter(pk=Number(output_field=IntegerField())))


def test_what_one_query_does_to_its_own_is_not_seen_by_others() -> None:
    queryset = Token.objects.select_related("user").filter(key="a")
    compiled(queryset)
    mine, _ = compiled(queryset)
    mine.select.clear()
    mine.klass_info["select_fields"].clear()
    mine.klass_info["related_klass_infos"][0]["select_fields"].clear()
    mine.klass_info["related_klass_infos"].clear()
    mine.annotation_col_map["a"] = 1

    compiled(queryset)


@pytest.mark.parametrize("condition", [GreaterThan(Count("pk"), 1), GreaterThan(Window(RowNumber()), 1)])
def test_conditions_on_groups_and_windows_are_djangos(condition: Any) -> None:
    queryset = User.objects.filter(pk=1)
    assert is_cached(queryset)
    queryset.query.where.add(condition, "AND")
    assert key_of(queryset.query) is None


# Whatever is asked in whatever order

CONDITIONS = [
    Q(role="user"), Q(thread=1), Q(author=1), Q(author=None), Q(in_reply_to=None), Q(in_reply_to__isnull=False),
    Q(thread__owner=1), Q(author__username="a"), Q(pk__in=[]), Q(attempt__gt=F("attempt")), Q(reply=None),
]  # fmt: skip
ORDERS = [(), ("pk",), ("-pk",), ("role", "-created_at"), ("thread",), ("thread__title",), ("?",), ("author_id",)]
RELATED = [(), ("thread",), ("thread__owner", "author"), ("in_reply_to",), ("reply__thread",), ("in_reply_to__author",)]

STEPS = st.one_of(
    st.sampled_from(CONDITIONS).map(lambda q: lambda queryset: queryset.filter(q)),
    st.sampled_from(CONDITIONS).map(lambda q: lambda queryset: queryset.exclude(q)),
    st.tuples(st.sampled_from(CONDITIONS), st.sampled_from(CONDITIONS)).map(
        lambda both: lambda queryset: queryset.filter(both[0] | both[1])
    ),
    st.sampled_from(ORDERS).map(lambda names: lambda queryset: queryset.order_by(*names)),
    st.sampled_from(RELATED).map(lambda names: lambda queryset: queryset.select_related(*(names or (None,)))),
    st.sampled_from([lambda queryset: queryset.reverse(), lambda queryset: queryset.distinct()]),
    st.sampled_from(
        [lambda queryset: queryset.annotate(n=Count("tool_calls")), lambda queryset: queryset.defer("role")]
    ),
)
CUTS = st.sampled_from([slice(None), slice(1), slice(20), slice(5, 10), slice(5, None)])


@settings(max_examples=600)
@given(st.lists(STEPS, max_size=5), CUTS)
def test_any_chain_of_methods_is_written_as_by_django(steps: list[Callable[..., Any]], cut: slice) -> None:
    queryset = Message.objects.all()
    for step in steps:
        queryset = step(queryset)
    for each in (queryset, queryset[cut]):
        compiled(each)
        compiled(each)
