"""What tells one SELECT of a model from another but for WHERE and LIMIT, and of which queries nothing else does."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler

_ATTRIBUTES_OF_KEY = frozenset(
    {
        "_lookup_joins", "alias_map", "alias_refcount", "base_table", "default_ordering", "filter_is_sticky",
        "high_mark", "low_mark", "model", "order_by", "select_related", "table_map", "used_aliases", "where",
    }
)  # fmt: skip
"""What `key_of` reads, or what only WHERE and LIMIT depend on. Every other attribute of a query must have its default,
also one that a later Django adds."""
_DEFAULTS = {**{name: getattr(Query, name) for name in dir(Query)}, **vars(Query(None))}
_MISSING = object()

_methods_of = attrgetter(
    "as_sql", "find_ordering_name", "get_default_columns", "get_extra_select", "get_from_clause", "get_order_by",
    "get_related_selections", "get_select", "pre_sql_setup", "quote_name_unless_alias", "setup_query",
)  # fmt: skip
"""The methods that a cached SELECT skips."""


def is_djangos(method: Any) -> bool:
    """Whether a method of Django's compiler is the one it came with, and nobody has put another in its place."""
    return method.__module__ == SQLCompiler.__module__ and not hasattr(method, "__wrapped__")


djangos_methods: tuple[Any, ...] = _methods_of(SQLCompiler) if all(map(is_djangos, _methods_of(SQLCompiler))) else ()


def key_of(query: Any) -> tuple[Any, ...] | None:
    """Return what distinguishes the SELECT of a query from others of its model; None if it cannot be cached."""
    if type(query) is not Query or query.model is None or _methods_of(SQLCompiler) != djangos_methods:
        return None
    ordering = ordering_of(query)
    for field in ordering:
        if type(field) is not str:
            return None
    table = query.model._meta.db_table
    for alias in query.alias_map:
        if alias != table and query.alias_refcount[alias]:
            return None
    for name, value in vars(query).items():
        if name not in _ATTRIBUTES_OF_KEY:
            default = _DEFAULTS.get(name, _MISSING)
            if value is not default and value != default:
                return None
    if query.where.contains_aggregate or query.where.contains_over_clause:
        return None
    related = query.select_related
    if not related:
        return (ordering,)
    if related is not True and type(related) is not dict:
        return None
    # It reuses the alias that a filter has left behind, with its kind of join.
    unused = [(alias, join.identity, join.join_type) for alias, join in query.alias_map.items() if alias != table]
    return ordering, _frozen(related), query.max_depth, tuple(unused)


def ordering_of(query: Any) -> tuple[Any, ...]:
    """Return what a query orders by: what it says itself, else what its model says."""
    return tuple(query.order_by or (query.default_ordering and query.get_meta().ordering) or ())


def _frozen(related: Any) -> Any:
    if type(related) is not dict:
        return related
    return tuple((name, _frozen(more)) for name, more in related.items())
