"""The count of an `update()` in a pipeline: a number that is asked for when somebody looks at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


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
