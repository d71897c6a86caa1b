"""Sums typed by people or models, evaluated without `eval` and without letting them take long."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any

LONGEST_EXPRESSION = 200
LARGEST_BITS = 4096

OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "ceil": math.ceil, "cos": math.cos, "exp": math.exp, "floor": math.floor, "log": math.log,
    "max": max, "min": min, "round": round, "sin": math.sin, "sqrt": math.sqrt, "tan": math.tan,
}  # fmt: skip
CONSTANTS = {"pi": math.pi, "e": math.e}


class ArithmeticProblem(ValueError):
    """The expression cannot be worked out; the text says why."""


def calculate(expression: str) -> str:
    """The value, as a person would write it."""
    if len(expression) > LONGEST_EXPRESSION:
        raise ArithmeticProblem(f"expression: at most {LONGEST_EXPRESSION} characters, please.")
    source = expression.replace("^", "**").replace("×", "*").replace("÷", "/").strip()
    try:
        value = _value(ast.parse(source, mode="eval").body)
    except ArithmeticProblem:
        raise
    except ZeroDivisionError as error:
        raise ArithmeticProblem("expression: it divides by zero.") from error
    except (SyntaxError, ValueError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        raise ArithmeticProblem(f"expression: I cannot work out {expression!r}.") from error
    return _written(value)


def _value(node: ast.AST) -> Any:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name in CONSTANTS:
            return CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _apply(type(op), _value(left), _value(right))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
            return FUNCTIONS[name](*map(_value, arguments))
    raise ArithmeticProblem(f"expression: only numbers, + - * / // % ** and {', '.join(FUNCTIONS)} are understood.")


def _apply(op: type[ast.AST], left: Any, right: Any) -> Any:
    """Bounded beforehand: 9**9**9 would keep a processor busy for hours."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length()
        needed = bits * max(right, 1) if op is ast.Pow else bits + right.bit_length()
        if needed > LARGEST_BITS:
            raise ArithmeticProblem("expression: the result is too large.")
    return OPERATORS[op](left, right)


def _written(value: Any) -> str:
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        raise ArithmeticProblem("expression: the result is not a real number.")
    # Twelve digits hide that 0.1 + 0.2 is not quite 0.3 in binary.
    return f"{value:.12g}" if isinstance(value, float) else str(value)
