"""The count of an `update()` in a pipeline: a number that is asked for when somebody looks at it."""

from __future__ import annotations

import math
import numbers
import operator
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

    def __getattr__(self, name: str) -> Any:
        # Who only looks whether it has something that no number has does not send what waits.
        if not hasattr(int, name):
            raise AttributeError(f"{name!r} is no attribute of a count.")
        return getattr(int(self), name)


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, DeferredCount) else value


def _with(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, *others: function(int(self), *map(_number, others))


def _reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other, *others: function(_number(other), int(self), *map(_number, others))


_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
_ARITHMETIC = ("add", "sub", "mul", "floordiv", "truediv", "mod", "lshift", "rshift", "and_", "or_", "xor")
_WITH_ANOTHER: tuple[Callable[..., Any], ...] = (divmod, pow)
_OTHERS: tuple[Callable[..., Any], ...] = (
    operator.neg, operator.pos, operator.abs, operator.invert, float, round, math.trunc, math.floor, math.ceil, format,
    str,
)  # fmt: skip

for _name in (*_COMPARISONS, *_ARITHMETIC):
    setattr(DeferredCount, f"__{_name.rstrip('_')}__", _with(getattr(operator, _name)))
for _name in _ARITHMETIC:
    setattr(DeferredCount, f"__r{_name.rstrip('_')}__", _reflected(getattr(operator, _name)))
for _function in _WITH_ANOTHER:
    setattr(DeferredCount, f"__{_function.__name__}__", _with(_function))
    setattr(DeferredCount, f"__r{_function.__name__}__", _reflected(_function))
for _function in _OTHERS:
    setattr(DeferredCount, f"__{_function.__name__}__", _with(_function))

numbers.Integral.register(DeferredCount)
