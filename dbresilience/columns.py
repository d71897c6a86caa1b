"""How Django writes columns, kept from query to query: `"table"."column"`, and all that a model has.

Django 5.2 writes each column anew in each query, which is a tenth of the time that a `get()` takes. Its answer is kept
where it can be no other.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class _Model(NamedTuple):
    """All columns of a model, as Django selects them."""

    fields: Sequence[Any]
    names: frozenset[str]
    columns: list[Any]
    texts: list[tuple[Any, str, type[Any]]]
    """Each column, its text, and the type of its parameters, of which there are none."""
    are_converted: bool


_KEPT = "_columns_of_dbresilience"
"""Where a model's `_meta` keeps that, by compiler, so that it goes with a model which is made up for a migration."""


class ColumnsMixin(_Compiler):
    """Remembers what Django has written for columns."""

    columns: dict[tuple[str, str | None], tuple[str, type[Any]]]
    """By table and column: the text, and the type of the parameters, of which there are none. Of the class."""

    _model: _Model | None = None

    def compile(self, node: Any) -> tuple[str, Any]:
        """Compile as Django does."""
        if type(node) is not Col:
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
        """Return what Django does; for all columns of a model, and nothing else, from memory."""
        query: Any = self.query
        meta = query.get_meta()
        self._model = None
        if (
            meta is None
            or not query.default_cols
            or query.select_related
            or query.annotations
            or query.extra
            or query.deferred_loading[0]
            or with_col_aliases
            or query.get_initial_alias() != meta.db_table  # which Django asks next, too, and `as_sql` makes undone
        ):
            return super().get_select(with_col_aliases)
        known = meta.__dict__.setdefault(_KEPT, {})
        model = known.get(type(self))
        # Where a field was added since, `concrete_fields` is another object.
        if model is not None and model.fields is meta.concrete_fields and self._are_written_as_ever(model.names):
            self._model = model
            select = [(column, (text, kind()), None) for column, text, kind in model.texts]
            return select, {"model": query.model, "select_fields": list(range(len(select)))}, {}
        found = super().get_select()
        columns: list[Any] = [column for column, _, _ in found[0]]
        if not meta.parents and all(map(_is_plain, columns)):
            names = frozenset(column.target.column for column in columns)
            if self._are_written_as_ever(names):
                are_converted = bool(super().get_converters(columns))
                texts = [(column, text, type(parameters)) for column, (text, parameters), _ in found[0]]
                known[type(self)] = _Model(meta.concrete_fields, names, columns, texts, are_converted)
        return found

    def _are_written_as_ever(self, columns: frozenset[str]) -> bool:
        # A query within another, which knows that one's aliases, has no table by its own name.
        return _QUOTES_EVERY_NAME or columns.isdisjoint(self.query.alias_map)

    def get_converters(self, expressions: Any) -> dict[int, Any]:
        """Return what Django does; for all columns of a model that nothing converts, from memory."""
        model = self._model
        if model is not None and not model.are_converted and expressions == model.columns:
            return {}
        return super().get_converters(expressions)


def _is_plain(column: Any) -> bool:
    """Whether nothing but its field's name decides how a column is selected."""
    return type(column) is Col and type(column.output_field).select_format is Field.select_format
