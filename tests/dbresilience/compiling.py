"""Django's compiler and ours side by side: the text they give, and what they know afterwards."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import Model, QuerySet

from dbresilience import selects


class Part(Model):
    """A model of no application."""

    class Meta:
        abstract = True
        app_label = "tests"


def compiled(queryset: QuerySet[Any], *, asked: dict[str, bool] | None = None, **options: Any) -> tuple[Any, Any]:
    """Return our compiler and Django's, once both have compiled.

    Args:
        queryset: is left as it is.
        asked: what `as_sql` is given.
        options: what the compilers are given.
    """
    ours, djangos = connection.ops._cache, import_module(connection.ops.compiler_module)  # type: ignore[attr-defined]
    mine, theirs = (
        module.SQLCompiler(apart(queryset.query), connection, connection.alias, **options) for module in (ours, djangos)
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


def is_kept(queryset: QuerySet[Any]) -> bool:
    """Whether the text of a query is kept once it was written, and used then."""
    compiled(queryset)
    key = selects._key_of(queryset.query)
    kept = queryset.model._meta.__dict__.get(selects._KEPT, {})
    compiled(queryset)
    return key is not None and kept.get((connection.ops.compiler("SQLCompiler"), key)) is not None
