"""Caches how Django compiles columns: `"table"."column"`, and all that a model has.

Django 5.2 compiles each column anew in each query, which is a tenth of the time that a `get()` takes. Its answer is
cached only if nothing but their names decides it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.models import Field
from django.db.models.expressions import Col
from django.db.models.sql.compiler import SQLCompiler

if TYPE_CHECKING:
    _Compiler = SQLCompiler
else:
    _Compiler = object

MOST_COLUMNS = 10_000
"""How many are remembered; then all are forgotten. A program may make up tables for its customers."""

# From 6.1 on Django quotes every name. Before, it leaves one as it is that is an alias in the query at hand.
_QUOTES_EVERY_NAME = hasattr(SQLCompiler, "quote_name")


class CachedColumns(NamedTuple):
    """Selected columns whose SQL depends on their names alone."""

    names: frozenset[str]
    columns: list[Any]
    texts: list[tuple[Any, str, type[Any]]]
    """Each column, its SQL, and the type of its parameters, of which there are none."""
    asks_for_converters: bool

    def select(self) -> list[Any]:
        """Return what `SQLCompiler.select` is, for one query."""
        return [(column, (text, kind()), None) for column, text, kind in self.texts]


def cacheable_columns(compiler: Any, select: Sequence[Any], metas: Iterable[Any]) -> CachedColumns | None:
    """Return what may be cached of the columns that were selected; None if something else has a say in them.

    Args:
        compiler: one of ours.
        select: as `SQLCompiler.select` is.
        metas: the `_meta` of each model whose columns they are.
    """
    columns: list[Any] = [column for column, _, _ in select]
    if not all(map(_is_plain, columns)):
        return None
    if not all(_is_selected_plainly(field) for meta in metas for field in meta.concrete_fields):
        return None
    texts = [(column, text, type(parameters)) for column, (text, parameters), _ in select]
    # A field of Django's converts for all databases of a kind, or for none.
    are_of_django = all(_is_of_django(type(column.output_field).get_db_converters) for column in columns)
    asks_for_converters = not are_of_django or bool(compiler.get_converters(columns))
    return CachedColumns(frozenset(column.target.column for column in columns), columns, texts, asks_for_converters)


def has_one_table(meta: Any) -> bool:
    """Whether a model, or that of which it is a proxy, has all of its columns in one table."""
    return not meta.concrete_model._meta.parents


class _Model(NamedTuple):
    """All columns of a model, as Django selects them."""

    fields: Sequence[Any]
    table: str
    columns: CachedColumns


_ATTRIBUTE = "_columns_of_dbresilience"
"""Of a model's `_meta`: its `_Model` by compiler. There it goes with a model which is made up for a migration."""


class ColumnsMixin(_Compiler):
    """Caches what Django compiles for columns."""

    columns: dict[tuple[str, str | None], tuple[str, type[Any]]]
    """By table and column: the SQL, and the type of the parameters, of which there are none. Of the class."""

    quotes_plainly: bool
    """Whether nothing but a name decides how it is quoted, such as whose database it is. Of the class."""

    _cached: CachedColumns | None = None
    """What is selected, if that is cached."""

    def compile(self, node: Any) -> tuple[str, Any]:
        """Compile as Django does."""
        if type(node) is not Col or not self.quotes_plainly:
            return super().compile(node)
        table, column = node.alias, node.target.column
        if not _QUOTES_EVERY_NAME:
            query = self.query
            # `extra` and not `extra_select`, which is a property that looks further.
            if (
                table not in query.table_map
                or column in query.alias_map
                or column in query.external_aliases
                or query.extra
            ):
                return super().compile(node)
        found = self.columns.get((table, column))
        if found is None:
            text, parameters = super().compile(node)
            if len(self.columns) >= MOST_COLUMNS:
                self.columns.clear()
            found = self.columns[table, column] = text, type(parameters)
        return found[0], found[1]()

    def get_select(self, with_col_aliases: bool = False) -> tuple[Any, Any, Any]:
        """Return what Django does; all columns of a model, and nothing else, come from the cache."""
        query: Any = self.query
        meta = query.get_meta()
        self._cached = None
        if (
            meta is None
            or not query.default_cols
            or query.select_related
            or query.annotations
            or query.extra
            or query.deferred_loading[0]
            or with_col_aliases
            or not self.quotes_plainly
            or query.get_initial_alias() != meta.db_table  # which Django asks next, too, and `as_sql` makes undone
        ):
            return super().get_select(with_col_aliases)
        models = meta.__dict__.setdefault(_ATTRIBUTE, {})
        model = models.get(type(self))
        # Where a field was added since, `concrete_fields` is another object.
        if (
            model is not None
            and model.fields is meta.concrete_fields
            and model.table == meta.db_table
            and self._quotes_all(model.columns)
        ):
            self._cached = model.columns
            select = model.columns.select()
            return select, {"model": query.model, "select_fields": list(range(len(select)))}, {}
        found = super().get_select()
        columns = cacheable_columns(self, found[0], [meta]) if has_one_table(meta) else None
        if columns is not None and self._quotes_all(columns):
            models[type(self)] = _Model(meta.concrete_fields, meta.db_table, columns)
        return found

    def _quotes_all(self, columns: CachedColumns) -> bool:
        # A query within another, which knows that one's aliases, has no table by its own name.
        return _QUOTES_EVERY_NAME or columns.names.isdisjoint(self.query.alias_map)

    def get_converters(self, expressions: Any) -> dict[int, Any]:
        """Return what Django does; nothing for cached columns that nothing converts."""
        cached = self._cached
        if cached is not None and not cached.asks_for_converters and expressions == cached.columns:
            return {}
        return super().get_converters(expressions)


def _is_plain(column: Any) -> bool:
    """Whether nothing but its field's name decides how a column is selected."""
    return type(column) is Col and type(column.output_field).select_format is Field.select_format


def _is_selected_plainly(field: Any) -> bool:
    """Whether a field has no say in which column is selected for it."""
    kind = type(field)
    return _is_of_django(getattr(kind.cached_col, "func", None)) and _is_of_django(kind.get_col)


def _is_of_django(function: Any) -> bool:
    return (getattr(function, "__module__", None) or "").startswith("django.db.models.")
