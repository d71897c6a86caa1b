"""Django's SQL compilers: columns are put into words once, an INSERT before its connection is taken; counts come later.

Django writes `"table"."column"` for each column of each query, which is a tenth of the time that a `get()` takes. Here
its answer is kept where it can be no other: for a column of a table, and for all columns of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db.models import Field
from django.db.models.expressions import Col
from django.db.models.sql.compiler import SQLCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import CURSOR, ROW_COUNT

from .counts import DeferredCount

if TYPE_CHECKING:
    _Compiler = SQLCompiler
    _InsertCompiler = SQLInsertCompiler
    _UpdateCompiler = SQLUpdateCompiler
else:
    _Compiler = _InsertCompiler = _UpdateCompiler = object

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


class InsertMixin(ColumnsMixin, _InsertCompiler):
    """Makes its statements before it opens the cursor that Django opens first, since a connection comes with that.

    So what a field does while its value is prepared, such as to store a file, is done before the database is asked.
    """

    def execute_sql(self, returning_fields: Any = None) -> Any:  # type: ignore[override]  # as above
        """Execute as Django does."""
        self.returning_fields = returning_fields
        statements = self.as_sql()
        self.as_sql = lambda: statements  # type: ignore[method-assign]  # once, of this one
        try:
            return super().execute_sql(returning_fields)
        finally:
            del self.as_sql


class UpdateMixin(ColumnsMixin, _UpdateCompiler):
    """Asks for no count at once while statements wait."""

    def execute_sql(self, result_type: Any) -> Any:  # type: ignore[override]  # the stubs tell kinds of results apart
        """Execute as Django does."""
        connection: Any = self.connection
        if result_type != ROW_COUNT or connection.batch is None or self.query.get_related_updates():
            return super().execute_sql(result_type)
        cursor = SQLCompiler.execute_sql(self, CURSOR)
        if cursor is None:
            return 0
        with cursor:
            return DeferredCount(cursor.cursor, connection) if cursor.cursor.waits else cursor.rowcount


_MIXINS: dict[type[Any], type[Any]] = {SQLInsertCompiler: InsertMixin, SQLUpdateCompiler: UpdateMixin}


@cache
def our_compilers(module: str, operations: type[Any]) -> ModuleType:
    """Return a module like that of this name, which Django takes its compilers from, with ours in it.

    Args:
        module: Django's, the `compiler_module` of the operations.
        operations: those of the backend, which have a part in how columns are written.
    """
    given = import_module(module)
    ours = ModuleType(given.__name__, given.__doc__)
    ours.__dict__.update(given.__dict__)
    for name, value in vars(given).items():
        if isinstance(value, type) and issubclass(value, SQLCompiler):
            mixin = next((mixin for kind, mixin in _MIXINS.items() if issubclass(value, kind)), ColumnsMixin)
            setattr(ours, name, type(name, (mixin, value), {"columns": {}}))
    return ours
