"""The count of an `update()` in a pipeline: a number that is asked for when somebody looks at it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from django.db.models.sql.constants import CURSOR, ROW_COUNT


class DeferredCount:
    """Rows that a statement changed; behaves as the `int` that it is, and sends what waits when it is first used."""

    __slots__ = ("_cursor", "_wrapper")

    def __init__(self, cursor: Any, wrapper: Any) -> None:
        self._cursor = cursor
        self._wrapper = wrapper

    def __index__(self) -> int:
        with self._wrapper.wrap_database_errors:
            return int(self._cursor.rowcount)

    __int__ = __index__

    def __bool__(self) -> bool:
        return bool(int(self))

    def __hash__(self) -> int:
        return hash(int(self))

    def __repr__(self) -> str:
        return repr(int(self))


def _of_int(name: str) -> Callable[..., Any]:
    method = getattr(int, name)

    def apply(self: DeferredCount, *args: Any) -> Any:
        return method(int(self), *(int(each) if isinstance(each, DeferredCount) else each for each in args))

    return apply


_COMPARISONS = ["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"]
_ARITHMETIC = ["add", "sub", "mul", "floordiv", "truediv", "mod", "divmod", "pow", "and", "or"]
_OTHERS = ["__neg__", "__pos__", "__abs__", "__float__", "__round__", "__format__", "__str__"]

for _name in [*_COMPARISONS, *_OTHERS, *(f"__{side}{each}__" for each in _ARITHMETIC for side in ("", "r"))]:
    setattr(DeferredCount, _name, _of_int(_name))


@cache
def compilers_counting_later(module: str) -> ModuleType:
    """Return Django's compilers with another for updates, which asks for no count at once while statements wait."""
    given = import_module(module)
    compilers = ModuleType(given.__name__, given.__doc__)
    compilers.__dict__.update(given.__dict__)

    class SQLUpdateCompiler(given.SQLUpdateCompiler):  # type: ignore[name-defined,misc]  # known when it runs
        def execute_sql(self, result_type: Any) -> Any:
            batch = getattr(self.connection.connection, "batch", None)
            if result_type != ROW_COUNT or batch is None or self.query.get_related_updates():
                return super().execute_sql(result_type)
            cursor = super(given.SQLUpdateCompiler, self).execute_sql(CURSOR)
            if cursor is None:
                return 0
            cursor.close()
            return DeferredCount(cursor.cursor, self.connection)

    compilers.SQLUpdateCompiler = SQLUpdateCompiler  # type: ignore[attr-defined]  # a module of our making
    return compilers
