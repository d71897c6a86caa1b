"""Django's compiler and ours side by side: the text they give, and what they know afterwards."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from unittest import mock

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import CharField, Model, QuerySet

from dbresilience.selects import SelectMixin


class Part(Model):
    """A model of no application, of which only the SQL matters."""

    class Meta:
        abstract = True
        app_label = "tests"


def our_and_djangos_compilers() -> tuple[Any, Any]:
    return connection.ops._cache, import_module(connection.ops.compiler_module)  # type: ignore[attr-defined]


def compiled(queryset: QuerySet[Any], *, asked: dict[str, bool] | None = None, **options: Any) -> tuple[Any, Any]:
    """Return our compiler and Django's, once both have compiled.

    Args:
        queryset: is left as it is.
        asked: what `as_sql` is given.
        options: what the compilers are given.
    """
    mine, theirs = (
        module.SQLCompiler(apart(queryset.query), connection, connection.alias, **options)
        for module in our_and_djangos_compilers()
    )
    assert outcome(mine, asked or {}) == outcome(theirs, asked or {})
    return mine, theirs


def apart(query: Any) -> Any:
    clone = query.clone()
    clone.table_map = {name: [*aliases] for name, aliases in query.table_map.items()}
    return clone


def outcome(compiler: Any, asked: dict[str, bool]) -> Any:
    """What a compiler gives, and what it knows afterwards."""
    try:
        statement = compiler.as_sql(**asked)
    except EmptyResultSet:
        statement = None
    converters = compiler.get_converters([column for column, _, _ in compiler.select])
    return (
        statement,
        [(str(column), text, alias) for column, text, alias in compiler.select],
        described(compiler.klass_info),
        compiler.annotation_col_map,
        compiler.col_count,
        compiler.has_extra_select,
        (compiler.where is compiler.query.where, compiler.having, compiler.qualify),
        sorted(converters),
        left_behind(compiler.query),
    )


def left_behind(query: Any) -> Any:
    """What is left in a query, for those that are derived of it; clones share the lists of aliases, which grow."""
    joins = [(alias, type(join), join.table_name, join.join_type) for alias, join in query.alias_map.items()]
    return joins, query.alias_refcount, {name: set(aliases) for name, aliases in query.table_map.items()}


def described(klass_info: Any) -> Any:
    """Return it with its functions left out, which are made anew for each query."""
    if klass_info is None:
        return None
    said = {name: value for name, value in klass_info.items() if not callable(value) or isinstance(value, type)}
    return said | {"related_klass_infos": [described(each) for each in klass_info.get("related_klass_infos", [])]}


def is_cached(queryset: QuerySet[Any]) -> bool:
    """Whether the second of two such queries takes its SELECT from the cache."""
    compiled(queryset)
    with mock.patch.object(SelectMixin, "_restore", autospec=True, side_effect=SelectMixin._restore) as restore:
        compiled(queryset)
    return restore.called


class Shouted(CharField):  # type: ignore[type-arg]
    """A column with a word of its own around it."""

    word = "upper"

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return f"{self.word}({sql})", params
