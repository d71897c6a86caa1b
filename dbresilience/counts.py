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

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        return int, (int(self),)  # what is pickled or copied is the number


def _of_int(name: str) -> Callable[..., Any]:
    method = getattr(int, name)

    def apply(self: DeferredCount, *args: Any) -> Any:
        return method(int(self), *(int(each) if isinstance(each, DeferredCount) else each for each in args))

    return apply


_COMPARISONS = ["eq", "ne", "lt", "le", "gt", "ge"]
_ARITHMETIC = ["add", "sub", "mul", "floordiv", "truediv", "mod", "divmod", "pow"]
_BITS = ["and", "or", "xor", "lshift", "rshift"]
_OTHERS = ["neg", "pos", "abs", "invert", "float", "round", "trunc", "floor", "ceil", "format", "str"]

for _name in [*_COMPARISONS, *_OTHERS, *_ARITHMETIC, *_BITS, *(f"r{each}" for each in _ARITHMETIC + _BITS)]:
    setattr(DeferredCount, f"__{_name}__", _of_int(f"__{_name}__"))


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
            with cursor:
                return DeferredCount(cursor.cursor, self.connection) if cursor.cursor.waits else cursor.rowcount

    compilers.SQLUpdateCompiler = SQLUpdateCompiler  # type: ignore[attr-defined]  # a module of our making
    return compilers
