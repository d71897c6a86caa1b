"""How Django writes columns, kept from query to query: `"table"."column"`, and all that a model has.

Django 5.2 writes each column anew in each query, which is a tenth of the time that a `get()` takes. Its answer is kept
where it can be no other.
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


class KnownColumns(NamedTuple):
    """Columns that are selected, and nothing but their names decides how."""

    names: frozenset[str]
    columns: list[Any]
    texts: list[tuple[Any, str, type[Any]]]
    """Each column, its text, and the type of its parameters, of which there are none."""
    are_converted: bool

    def select(self) -> list[Any]:
        """Return what `SQLCompiler.select` is, for one query."""
        return [(column, (text, kind()), None) for column, text, kind in self.texts]


def known_columns(compiler: Any, metas: Iterable[Any]) -> KnownColumns | None:
    """Return what is known of the columns that `compiler` has just selected; None if each query has to write them.

    Args:
        compiler: one of ours.
        metas: of the models whose columns they are.
    """
    columns: list[Any] = [column for column, _, _ in compiler.select]
    if not (
        all(map(_is_plain, columns)) and all(_is_selected_plainly(field) for m in metas for field in m.concrete_fields)
    ):
        return None
    names = frozenset(column.target.column for column in columns)
    texts = [(column, text, type(parameters)) for column, (text, parameters), _ in compiler.select]
    is_converted = not all(_is_of_django(type(column.output_field).get_db_converters) for column in columns)
    converters = SQLCompiler.get_converters(compiler, columns)
    return KnownColumns(names, columns, texts, is_converted or bool(converters))


class _Model(NamedTuple):
    """All columns of a model, as Django selects them."""

    fields: Sequence[Any]
    table: str
    known: KnownColumns


_KEPT = "_columns_of_dbresilience"
"""Where a model's `_meta` keeps that, by compiler, so that it goes with a model which is made up for a migration."""


class ColumnsMixin(_Compiler):
    """Remembers what Django has written for columns."""

    columns: dict[tuple[str, str | None], tuple[str, type[Any]]]
    """By table and column: the text, and the type of the parameters, of which there are none. Of the class."""

    quotes_plainly: bool
    """Whether nothing but a name decides how it is quoted, such as whose database it is. Of the class."""

    _known: KnownColumns | None = None
    """What is selected, if it is known."""

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
        """Return what Django does; for all columns of a model, and nothing else, from memory."""
        query: Any = self.query
        meta = query.get_meta()
        self._known = None
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
        models = meta.__dict__.setdefault(_KEPT, {})
        model = models.get(type(self))
        # Where a field was added since, `concrete_fields` is another object.
        if (
            model is not None
            and model.fields is meta.concrete_fields
            and model.table == meta.db_table
            and self._are_written_as_ever(model.known)
        ):
            self._known = model.known
            select = model.known.select()
            return select, {"model": query.model, "select_fields": list(range(len(select)))}, {}
        found = super().get_select()
        self.select = found[0]
        known = None if meta.parents else known_columns(self, [meta])
        if known is not None and self._are_written_as_ever(known):
            models[type(self)] = _Model(meta.concrete_fields, meta.db_table, known)
        return found

    def _are_written_as_ever(self, known: KnownColumns) -> bool:
        # A query within another, which knows that one's aliases, has no table by its own name.
        return _QUOTES_EVERY_NAME or known.names.isdisjoint(self.query.alias_map)

    def get_converters(self, expressions: Any) -> dict[int, Any]:
        """Return what Django does; for known columns that nothing converts, from memory."""
        known = self._known
        if known is not None and not known.are_converted and expressions == known.columns:
            return {}
        return super().get_converters(expressions)


def _is_plain(column: Any) -> bool:
    """Whether nothing but its field's name decides how a column is selected."""
    return type(column) is Col and type(column.output_field).select_format is Field.select_format


def _is_selected_plainly(field: Any) -> bool:
    """Whether a field has no say in which column is selected for it."""
    kind = type(field)
    return kind.cached_col is Field.cached_col and _is_of_django(kind.get_col)


def _is_of_django(function: Any) -> bool:
    return function.__module__.startswith("django.db.models.")  # type: ignore[no-any-return]  # a name
