"""Django's SQL compilers: a column is put into words once, and the count of an update in a pipeline asked for later."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.db.models.expressions import Col
from django.db.models.sql.compiler import SQLCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import CURSOR, ROW_COUNT

from .counts import DeferredCount

if TYPE_CHECKING:
    _Compiler = SQLCompiler
    _UpdateCompiler = SQLUpdateCompiler
else:
    _Compiler = _UpdateCompiler = object

MOST_COLUMNS = 10_000
"""How many are remembered at most, since a program may make up tables for its customers; then all are forgotten."""

# From 6.1 on Django quotes every name. Before, it leaves one as it is that is an alias in the query at hand.
_QUOTES_EVERY_NAME = hasattr(SQLCompiler, "quote_name")


class ColumnsMixin(_Compiler):
    """Remembers how Django writes columns (`"table"."column"`), which else is done for each of them in each query."""

    columns: dict[tuple[str, str | None], tuple[str, type[Any]]]
    """By table and column: Django's text, and the type of the parameters, of which there are none. Of the class."""

    def compile(self, node: Any) -> tuple[str, Any]:
        """Compile as Django does."""
        if type(node) is not Col:
            return super().compile(node)
        table, column = node.alias, node.target.column
        if not _QUOTES_EVERY_NAME:
            query = self.query
            # `extra` and not `extra_select`, which is a property that looks further.
            if table not in query.table_map or column in query.alias_map or query.extra:
                return super().compile(node)
        found = self.columns.get((table, column))
        if found is None:
            text, parameters = super().compile(node)
            if len(self.columns) >= MOST_COLUMNS:
                self.columns.clear()
            found = self.columns[table, column] = text, type(parameters)
        return found[0], found[1]()


class UpdateMixin(ColumnsMixin, _UpdateCompiler):
    """Asks for no count at once while statements wait."""

    def execute_sql(self, result_type: Any) -> Any:  # type: ignore[override]  # the stubs tell kinds of results apart
        """Execute as Django does."""
        batch = getattr(self.connection.connection, "batch", None)
        if result_type != ROW_COUNT or batch is None or self.query.get_related_updates():
            return super().execute_sql(result_type)
        cursor = SQLCompiler.execute_sql(self, CURSOR)
        if cursor is None:
            return 0
        with cursor:
            return DeferredCount(cursor.cursor, self.connection) if cursor.cursor.waits else cursor.rowcount


@cache
def our_compilers(module: str) -> ModuleType:
    """Return a module like that of this name, which Django takes its compilers from, with ours in it."""
    given = import_module(module)
    ours = ModuleType(given.__name__, given.__doc__)
    ours.__dict__.update(given.__dict__)
    for name, value in vars(given).items():
        if isinstance(value, type) and issubclass(value, SQLCompiler):
            mixin = UpdateMixin if issubclass(value, SQLUpdateCompiler) else ColumnsMixin
            setattr(ours, name, type(name, (mixin, value), {"columns": {}}))
    return ours
