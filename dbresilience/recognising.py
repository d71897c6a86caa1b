"""Which of Django's own reads have a result that can be told by their answer alone, so that they are called once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Manager, QuerySet
from django.db.models.manager import BaseManager
from django.db.models.sql import Query
from psycopg.pq.abc import PGresult

_RESULTS: dict[Any, Callable[[PGresult], Any]] = {
    QuerySet.count: lambda answer: int(answer.get_value(0, 0) or 0),
    QuerySet.exists: lambda answer: answer.ntuples > 0,
}
_NAMES = {method.__name__ for method in _RESULTS}

# All methods that a manager has from its queryset are of this one code.
_OF_MANAGERS: Any = Manager.count.__code__


def recognised(read: Callable[[], Any]) -> tuple[Callable[[], Any], Callable[[PGresult], Any] | None]:
    """Return a function that reads the same, and what makes its result of the server's answer, if that is enough."""
    owner, function = getattr(read, "__self__", None), getattr(read, "__func__", None)
    name = getattr(function, "__name__", "")
    if isinstance(owner, BaseManager) and name in _NAMES and getattr(function, "__code__", None) is _OF_MANAGERS:
        owner = owner.get_queryset()
        read = getattr(owner, name)
        function = getattr(read, "__func__", None)
    if isinstance(owner, QuerySet) and type(owner.query) is Query:
        return read, _RESULTS.get(function)
    return read, None
