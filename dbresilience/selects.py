"""A SELECT as Django writes it, kept from query to query but for its WHERE and LIMIT, which Django writes each time.

What is selected, joined for `select_related` and ordered by is the same whenever a program asks so, and takes most of
the time in which Django writes a statement. Its text is kept where it can be no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet, FieldDoesNotExist, FullResultSet
from django.db.models.fields.related import ForeignObject
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLCompiler

from .columns import ColumnsMixin, KnownColumns, known_columns

MOST_SELECTS = 100
"""How many are kept of a model; then all are forgotten. Programs may order by what a client names."""

_KEPT = "_selects_of_dbresilience"
"""Where a model's `_meta` keeps them, so that they go with a model which is made up for a migration."""

_MAY_DIFFER = frozenset(
    {
        "_lookup_joins", "alias_map", "alias_refcount", "base_table", "default_ordering", "filter_is_sticky",
        "high_mark", "low_mark", "model", "order_by", "select_related", "table_map", "used_aliases", "where",
    }
)  # fmt: skip
"""Attributes of a query that are looked at; in all others it has to be as a new one, also in those to come."""
_OF_A_NEW_QUERY = {**{name: getattr(Query, name) for name in dir(Query)}, **vars(Query(None))}
_SET_BY_COMPILING = frozenset({"_known", "col_count", "has_extra_select", "having", "qualify", "where"})

_UNKNOWN: Any = object()


class _Select(NamedTuple):
    """One of a model."""

    made_of: list[tuple[Any, Any, str]]
    """Of each model, its own first: its `_meta`, its fields and its table. Where a field was added since, the list is
    another."""
    head: str
    tail: str
    columns: KnownColumns
    klass_info: dict[str, Any]
    joined: list[tuple[str, Any]]
    """The aliases that Django joins, and leaves in the query."""

    @property
    def is_as_ever(self) -> bool:
        return all(meta.concrete_fields is fields and meta.db_table == table for meta, fields, table in self.made_of)

    def is_of(self, query: Any) -> bool:
        # Who copies a `_meta` for another class copies where these are kept.
        return self.made_of[0][0] is query.get_meta() and self.klass_info["model"] is query.model


class SelectMixin(ColumnsMixin):
    """Of Django's own compiler of SELECT."""

    def as_sql(self, with_limits: bool = True, with_col_aliases: bool = False) -> tuple[str, Any]:
        """Return the statement and its parameters as Django does."""
        query: Any = self.query
        key = _key_of(query) if with_limits and not with_col_aliases and self.quotes_plainly else None
        if key is None:
            return super().as_sql(with_limits, with_col_aliases)
        selects = query.get_meta().__dict__.setdefault(_KEPT, {})
        select = selects.get((type(self), key), _UNKNOWN)
        if select is _UNKNOWN or (select is not None and not (select.is_as_ever and select.is_of(query))):
            return self._write_and_keep(selects, key)
        if select is None or not self._are_written_as_ever(select.columns):
            return super().as_sql()
        self._have(select)
        condition, params = "", ()
        if query.where.children:
            try:
                text, params = self.compile(query.where)
                condition = f" WHERE {text}"
            except FullResultSet:
                pass
            except EmptyResultSet:
                return super().as_sql()  # which has a word for that, or raises it
        return f"{select.head}{condition}{select.tail}{self._limit()}", tuple(params)

    def _have(self, select: _Select) -> None:
        """Leave this compiler and its query as Django does."""
        query: Any = self.query
        self.select, self.klass_info, self.annotation_col_map = select.columns.select(), _copy(select.klass_info), {}
        self.col_count, self.has_extra_select, self._known = len(self.select), False, select.columns
        self.where, self.having, self.qualify = query.where, None, None
        if not query.alias_map:
            query.unref_alias(query.get_initial_alias())
        for alias, join in select.joined:
            query.table_map.setdefault(join.table_name, []).append(alias)
            query.alias_map[alias], query.alias_refcount[alias] = join, 0

    def _limit(self) -> str:
        query: Any = self.query
        return f" {self.connection.ops.limit_offset_sql(query.low_mark, query.high_mark)}" if query.is_sliced else ""

    def _write_and_keep(self, selects: dict[Any, _Select | None], key: Any) -> tuple[str, Any]:
        query: Any = self.query
        attributes, aliases = set(vars(self)), {query.get_meta().db_table, *query.alias_map}
        sql, params = super().as_sql()
        try:
            text, of_where = self.compile(query.where)
        except (EmptyResultSet, FullResultSet):
            return sql, params  # it has no condition, so it is not known where one belongs
        for other in [key for key, select in list(selects.items()) if select is not None and not select.is_as_ever]:
            selects.pop(other, None)
        if len(selects) >= MOST_SELECTS:
            selects.clear()
        selects[type(self), key] = None
        head, condition, tail = sql.partition(f" WHERE {text}")
        models = list(_models_in(self.klass_info))
        metas = [model["model"]._meta for model in models]
        columns = known_columns(self, metas)
        if (
            columns is not None
            and self._are_written_as_ever(columns)
            and condition  # else it is not written twice the same
            and params == tuple(of_where)
            and _are_columns(query.get_meta(), _ordering_of(query))
            and all(map(_is_simple, models))
            and not vars(self).keys() - attributes - _SET_BY_COMPILING
        ):
            made_of = [(meta, meta.concrete_fields, meta.db_table) for meta in metas]
            joined = [(alias, join) for alias, join in query.alias_map.items() if alias not in aliases]
            tail = tail.removesuffix(self._limit())
            selects[type(self), key] = _Select(made_of, head, tail, columns, _copy(self.klass_info), joined)
        return sql, params


def writes_as_django(compiler: type[Any]) -> bool:
    """Whether a compiler of SELECT is Django's own and not that of an engine on top of it."""
    return compiler.as_sql is SQLCompiler.as_sql and compiler.__module__.startswith("django.db.")


def is_djangos(method: Any) -> bool:
    """Whether a method of Django's compiler is the one it came with, and nobody has put another in its place."""
    return method.__module__ == SQLCompiler.__module__ and not hasattr(method, "__wrapped__")


_methods_of = attrgetter(
    "as_sql", "find_ordering_name", "get_default_columns", "get_extra_select", "get_from_clause", "get_order_by",
    "get_related_selections", "get_select", "pre_sql_setup", "quote_name_unless_alias", "setup_query",
)  # fmt: skip
"""What Django writes with, and would be passed over."""
_DJANGOS = _methods_of(SQLCompiler) if all(map(is_djangos, _methods_of(SQLCompiler))) else ()


def _key_of(query: Any) -> tuple[Any, ...] | None:
    """Return what tells the SELECT of a query from others of its model; None if it is not known to be simple."""
    if type(query) is not Query or query.model is None or _methods_of(SQLCompiler) != _DJANGOS:
        return None
    for name, value in vars(query).items():
        if name not in _MAY_DIFFER:
            usual = _OF_A_NEW_QUERY.get(name, _UNKNOWN)
            if value is not usual and value != usual:
                return None
    table = query.model._meta.db_table
    unused: tuple[Any, ...] = ()
    for alias, join in query.alias_map.items():
        if alias != table:
            if query.alias_refcount[alias]:
                return None
            unused += (alias, join.identity, join.join_type)
    where, ordering = query.where, _ordering_of(query)
    if where.contains_aggregate or where.contains_over_clause:
        return None
    for field in ordering:
        if type(field) is not str:
            return None
    related = query.select_related
    if not related:
        return ordering
    if related is not True and type(related) is not dict:
        return None
    return _frozen(related), query.max_depth, ordering, unused  # which it may join


def _ordering_of(query: Any) -> tuple[Any, ...]:
    return tuple(query.order_by or (query.default_ordering and query.get_meta().ordering) or ())


def _frozen(related: Any) -> Any:
    if type(related) is not dict:
        return related
    return tuple((name, _frozen(more)) for name, more in related.items())


def _are_columns(meta: Any, ordering: Sequence[str]) -> bool:
    """Whether a model's own columns are ordered by: a relation may have an order of its own."""
    try:
        fields = [
            meta.pk if name.removeprefix("-") == "pk" else meta.get_field(name.removeprefix("-")) for name in ordering
        ]
    except FieldDoesNotExist:
        return False
    return not any(field.is_relation for field in fields)


def _models_in(klass_info: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield klass_info
    for related in klass_info.get("related_klass_infos", ()):
        yield from _models_in(related)


def _is_simple(klass_info: dict[str, Any]) -> bool:
    """Whether a model has its columns in one table, and nothing but keys decides what of it belongs to a row."""
    field = klass_info.get("field")
    restriction = getattr(field, "get_extra_restriction", None)
    is_by_keys = field is None or getattr(restriction, "__func__", None) is ForeignObject.get_extra_restriction
    return is_by_keys and not klass_info["model"]._meta.concrete_model._meta.parents


def _copy(klass_info: dict[str, Any]) -> dict[str, Any]:
    """Return it for one query."""
    copied = {**klass_info, "select_fields": [*klass_info["select_fields"]]}
    if "related_klass_infos" in klass_info:
        copied["related_klass_infos"] = [_copy(related) for related in klass_info["related_klass_infos"]]
    return copied
