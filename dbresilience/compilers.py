"""Django's SQL compilers as ours: which mixin goes on which.

An INSERT is compiled before its connection is taken, and few rows as VALUES; the count of an UPDATE may come later;
columns (`columns`) and SELECTs (`selects`) are compiled once.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from django.db.backends.postgresql.compiler import SQLInsertCompiler as DjangosInsertCompiler
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models.sql.compiler import SQLCompiler, SQLInsertCompiler, SQLUpdateCompiler
from django.db.models.sql.constants import CURSOR, ROW_COUNT

from .columns import ColumnsMixin
from .counts import DeferredCount
from .selects import SelectMixin

if TYPE_CHECKING:
    _InsertCompiler = SQLInsertCompiler
    _UpdateCompiler = SQLUpdateCompiler
else:
    _InsertCompiler = _UpdateCompiler = object


FEW_ROWS = 5
"""Two to so many are inserted as VALUES: two of Django's users take 0.58 ms so and 0.85 ms as arrays, five 1.08 and
1.24, ten 1.25 both ways (PostgreSQL 18 on the same machine)."""


class InsertMixin(ColumnsMixin, _InsertCompiler):
    """Makes its statements before it opens the cursor that Django opens first, since a connection comes with that.

    So what a field does while its value is prepared, such as to store a file, is done before the database is asked.
    """

    assembles_as_django: bool
    """Whether what it would skip is Django's way to assemble rows and not that of an engine on top of it."""

    def execute_sql(self, returning_fields: Any = None) -> Any:  # type: ignore[override]  # the stubs name the fields
        """Execute as Django does."""
        self.returning_fields = returning_fields
        statements = self.as_sql()
        self.as_sql = lambda: statements  # type: ignore[method-assign]  # once, of this one
        try:
            return super().execute_sql(returning_fields)
        finally:
            del self.as_sql

    def assemble_as_sql(self, fields: Any, value_rows: Any) -> tuple[Any, Any]:
        """Assemble rows as Django does, a few of them as Django did before 5.2.

        Since then it makes an array of each column, for UNNEST. The server plans that quickly for many rows; psycopg
        writes arrays in Python, which takes longer than it saves for few.
        """
        if self.assembles_as_django and 1 < len(value_rows) <= FEW_ROWS:
            return SQLInsertCompiler.assemble_as_sql(self, fields, value_rows)
        return super().assemble_as_sql(fields, value_rows)


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


_DJANGOS_ASSEMBLING = DjangosInsertCompiler.assemble_as_sql
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
            default_mixin = SelectMixin if compiles_as_django(value) else ColumnsMixin
            mixin = next((mixin for kind, mixin in _MIXINS.items() if issubclass(value, kind)), default_mixin)
            attributes = {
                "columns": {},
                "quotes_plainly": operations.quote_name is DatabaseOperations.quote_name,
                "assembles_as_django": getattr(value, "assemble_as_sql", None) is _DJANGOS_ASSEMBLING,
            }
            setattr(ours, name, type(name, (mixin, value), attributes))
    return ours


def compiles_as_django(compiler: type[Any]) -> bool:
    """Whether a compiler of SELECT is Django's own and not that of an engine on top of it."""
    return compiler.as_sql is SQLCompiler.as_sql and compiler.__module__.startswith("django.db.")
