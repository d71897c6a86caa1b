"""Caches each SELECT of a model but for its WHERE and LIMIT, which Django compiles for each query.

What is selected, joined for `select_related` and ordered by is the same whenever a program asks so, and takes most of
the time in which Django compiles a statement. It is cached only if nothing but the key of a query (`select_keys`) and
the models decides it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet, FieldDoesNotExist, FullResultSet
from django.db.models.fields.related import ForeignObject

from .columns import CachedColumns, ColumnsMixin, cacheable_columns, has_one_table
from .select_keys import key_of, ordering_of

MOST_SELECTS = 100
"""How many are cached of a model; then all are forgotten. Programs may order by what a client names."""

_ATTRIBUTE = "_selects_of_dbresilience"
"""Of a model's `_meta`: its SELECTs by compiler and key; None where Django has to compile it. There they go with a
model which is made up for a migration."""

_SET_BY_COMPILING = frozenset({"_cached", "col_count", "has_extra_select", "having", "qualify", "where"})
_UNKNOWN: Any = object()


class _Select(NamedTuple):
    """A compiled SELECT without WHERE and LIMIT, and what Django leaves behind when it compiles one."""

    models: list[tuple[Any, Any, str]]
    """The model's own and those joined: `_meta`, fields and table. Where a field was added, the list is another."""
    head: str
    """Up to WHERE."""
    tail: str
    """ORDER BY, between WHERE and LIMIT."""
    columns: CachedColumns
    klass_info: dict[str, Any]
    joined: list[tuple[str, Any]]
    """The aliases that are joined for `select_related`."""

    @property
    def is_current(self) -> bool:
        return all(meta.concrete_fields is fields and meta.db_table == table for meta, fields, table in self.models)

    def belongs_to(self, query: Any) -> bool:
        # A copied `_meta` shares its cache with the original.
        return self.models[0][0] is query.get_meta() and self.klass_info["model"] is query.model


class SelectMixin(ColumnsMixin):
    """Caches what Django's own compiler of SELECT compiles; not for another engine's."""

    def as_sql(self, with_limits: bool = True, with_col_aliases: bool = False) -> tuple[str, Any]:
        """Return the statement and its parameters as Django does."""
        query: Any = self.query
        key = key_of(query) if with_limits and not with_col_aliases and self.quotes_plainly else None
        if key is None:
            return super().as_sql(with_limits, with_col_aliases)
        selects = query.get_meta().__dict__.setdefault(_ATTRIBUTE, {})
        select = selects.get((type(self), key), _UNKNOWN)
        if select is _UNKNOWN:
            return self._compile_and_cache(selects, key)
        if select is None:
            return super().as_sql()
        if not select.is_current or not select.belongs_to(query):
            _drop_outdated(selects)
            return self._compile_and_cache(selects, key)
        if not self._quotes_all(select.columns):
            return super().as_sql()
        self._restore(select)
        condition, params = "", ()
        if query.where.children:
            try:
                text, params = self.compile(query.where)
                condition = f" WHERE {text}"
            except FullResultSet:
                pass
            except EmptyResultSet:
                return super().as_sql()  # it compiles `0 = 1`, or raises this
        return f"{select.head}{condition}{select.tail}{self._limit()}", tuple(params)

    def _restore(self, select: _Select) -> None:
        """Set what Django leaves behind on the compiler and the query."""
        query: Any = self.query
        self.select, self.klass_info, self.annotation_col_map = select.columns.select(), _copy(select.klass_info), {}
        self.col_count, self.has_extra_select, self._cached = len(self.select), False, select.columns
        self.where, self.having, self.qualify = query.where, None, None
        if not query.alias_map:
            query.unref_alias(query.get_initial_alias())
        for alias, join in select.joined:
            query.table_map.setdefault(join.table_name, []).append(alias)
            query.alias_map[alias], query.alias_refcount[alias] = join, 0

    def _limit(self) -> str:
        query: Any = self.query
        return f" {self.connection.ops.limit_offset_sql(query.low_mark, query.high_mark)}" if query.is_sliced else ""

    def _compile_and_cache(self, selects: dict[Any, _Select | None], key: Any) -> tuple[str, Any]:
        query: Any = self.query
        attributes, aliases = set(vars(self)), {query.get_meta().db_table, *query.alias_map}
        sql, params = super().as_sql()
        try:
            text, of_where = self.compile(query.where)
        except (EmptyResultSet, FullResultSet):
            return sql, params  # it has no condition, so it is not known where one belongs
        head, condition, tail = sql.partition(f" WHERE {text}")
        if not condition:
            return sql, params  # this condition is compiled otherwise each time, which says nothing of other queries
        if len(selects) >= MOST_SELECTS:
            selects.clear()
        select, models = None, list(_models_in(self.klass_info))
        if (
            params == tuple(of_where)
            and not vars(self).keys() - attributes - _SET_BY_COMPILING
            and _are_columns(query.get_meta(), ordering_of(query))
            and all(map(_is_simple, models))
        ):
            metas = [model["model"]._meta for model in models]
            columns = cacheable_columns(self, self.select, metas)
            if columns is not None:
                if not self._quotes_all(columns):
                    return sql, params  # this query has an alias that is named like a column
                joined = [(alias, join) for alias, join in query.alias_map.items() if alias not in aliases]
                tail = tail.removesuffix(self._limit())
                made_of = [(meta, meta.concrete_fields, meta.db_table) for meta in metas]
                select = _Select(made_of, head, tail, columns, _copy(self.klass_info), joined)
        selects[type(self), key] = select
        return sql, params


def _drop_outdated(selects: dict[Any, _Select | None]) -> None:
    """Let go of models that are gone: they are met when a model's fields are another list than before."""
    for key in list(selects):
        select = selects.get(key)
        if select is not None and not select.is_current:
            selects.pop(key, None)


def _are_columns(meta: Any, ordering: Sequence[str]) -> bool:
    """Whether a model's own columns are ordered by, and no relation, which Django joins, and which has an order too."""
    names = [name.removeprefix("-") for name in ordering]
    try:
        fields = [meta.pk if name == "pk" else meta.get_field(name) for name in names]
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
    return is_by_keys and has_one_table(klass_info["model"]._meta)


def _copy(klass_info: dict[str, Any]) -> dict[str, Any]:
    """Return it for one query."""
    copied = {**klass_info, "select_fields": [*klass_info["select_fields"]]}
    if "related_klass_infos" in klass_info:
        copied["related_klass_infos"] = [_copy(related) for related in klass_info["related_klass_infos"]]
    return copied
