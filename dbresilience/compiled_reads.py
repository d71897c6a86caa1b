"""Reads that are put into words before a connection is taken, and whose result comes of their answer alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from django.core.exceptions import EmptyResultSet
from django.db.models import Count, Manager, QuerySet
from django.db.models.manager import BaseManager
from django.db.models.sql import Query
from django.db.models.sql.constants import CURSOR

# All methods that a manager has from its queryset are of this one code.
_OF_MANAGERS: Any = Manager.count.__code__

_NUMBER = "__count"
"""What Django calls the column of a count."""
_ALL_ROWS: Any = Count("*").resolve_expression(summarize=True)


class CompiledRead:
    """A read that is executed, takes what was answered, and then makes its result of that.

    Args:
        compiler: Django's, of its query; None if nobody is to be asked.
        fetch: what is to be had of the cursor, for which no connection is needed.
        answer: what would come of it where nothing can match, for which nobody is asked either.
        result_of: makes the result of what was fetched; without it, that is the result.
    """

    def __init__(
        self,
        compiler: Any,
        fetch: Callable[[Any], Any],
        answer: Any,
        result_of: Callable[[Any], Any] | None = None,
    ) -> None:
        self._compiler = compiler
        self._fetch = fetch
        self._answer = answer
        self._result_of = result_of
        self._cursor: Any = None
        if compiler is not None:
            with suppress(EmptyResultSet):  # nothing can match; whoever executes it deals with that
                sql = compiler.as_sql()
                compiler.as_sql = lambda *args, **kwargs: sql

    def execute(self) -> None:
        """Execute its statement, or let it wait."""
        if self._compiler is not None:
            self._cursor = cursor = self._compiler.execute_sql(CURSOR)
            if cursor is not None and not cursor.waits:
                self.take()  # else the cursor would keep the connection

    def take(self) -> None:
        """Take what was answered, unless that is done."""
        cursor, self._cursor = self._cursor, None
        if cursor is not None:
            try:
                self._answer = self._fetch(cursor)
            finally:
                cursor.close()

    def result(self) -> Any:
        """Return what the read returns by itself."""
        return self._answer if self._result_of is None else self._result_of(self._answer)


def compile_queryset(queryset: Any, alias: str) -> CompiledRead:
    """Return a queryset as a read, whose result is a list.

    Args:
        queryset: is left as it is.
        alias: the database that is to be asked.
    """
    if queryset._result_cache is not None:
        return CompiledRead(None, list, list(queryset))
    asked = queryset.using(alias)
    compiler = asked.query.get_compiler(using=alias)

    def fetch(cursor: Any) -> list[Any]:
        rows = cursor.fetchall()
        return [row[: compiler.col_count] for row in rows] if compiler.has_extra_select else rows

    def objects_of(rows: list[Any]) -> list[Any]:
        # The queryset makes them as ever, of rows that are there already.
        compiler.execute_sql = lambda *args, **kwargs: iter([rows])
        asked.query.get_compiler = lambda *args, **kwargs: compiler
        try:
            return list(asked)
        finally:
            del asked.query.get_compiler  # else query and compiler keep each other until the garbage is collected

    return CompiledRead(compiler, fetch, [], objects_of)


def compile_function(read: Callable[[], Any], alias: str) -> CompiledRead | None:
    """Return Django's own `exists`, or `count` of all rows of a query, as a read of one statement.

    Args:
        read: any function.
        alias: the database that is to be asked.

    Returns:
        The compiled read. None where the function itself has to be called: it is not Django's own, its queryset has
        its result or is for another database, or rows are counted that are distinct, sliced, grouped, computed or
        united.
    """
    queryset = _queryset_of(read)
    if queryset is None or queryset.db != alias:
        return None
    return _OWN[read.__name__].compile(queryset.query, alias)


def is_count(read: Callable[[], Any]) -> bool:
    """Whether `read` is Django's own `count`, so that its result is the one number that is answered."""
    return getattr(read, "__name__", None) == "count" and _queryset_of(read) is not None


def _queryset_of(read: Callable[[], Any]) -> Any:
    """Return whose `count` or `exists` a function is, if it is Django's own and has to ask for its result."""
    owner, function, name = (getattr(read, attribute, None) for attribute in ("__self__", "__func__", "__name__"))
    own = _OWN.get(name) if isinstance(name, str) else None
    if own is None:
        return None
    if isinstance(owner, BaseManager) and getattr(function, "__code__", None) is _OF_MANAGERS:
        owner = owner.get_queryset()
        function = getattr(getattr(owner, own.name), "__func__", None)
    if not isinstance(owner, QuerySet) or type(owner.query) is not Query or owner._result_cache is not None:
        return None
    return owner if function is own.method and getattr(Query, own.asking.__name__) is own.asking else None


def _compile_exists(query: Any, alias: str) -> CompiledRead:
    compiler = query.exists().get_compiler(using=alias)
    return CompiledRead(compiler, lambda cursor: cursor.pgresult.ntuples > 0, False)


def _compile_count(query: Any, alias: str) -> CompiledRead | None:
    if (
        query.annotations
        or query.distinct
        or query.combinator
        or query.is_sliced
        or query.where.contains_aggregate
        or query.where.contains_over_clause
    ):
        return None  # Django counts the rows of a query within a query
    # What is left of `Query.get_aggregation` for this one expression, which refers to nothing of the query. Django
    # makes it anew for each, and finds out that it refers to nothing, which takes half of the time of a count().
    counting = query.clone()
    counting.select, counting.selected, counting.default_cols, counting.extra = (), None, False, {}
    counting.annotations = {_NUMBER: _ALL_ROWS}
    counting.set_annotation_mask(counting.annotations)
    counting.clear_ordering(force=True)
    counting.select_for_update = counting.select_related = False
    compiler = counting.get_compiler(using=alias, elide_empty=True)
    return CompiledRead(compiler, lambda cursor: cursor.fetchone()[0], 0)


class _Own(NamedTuple):
    """A method of Django's as it is now. Who replaces it, such as to estimate, is asked."""

    name: str
    method: Callable[..., Any]
    asking: Callable[..., Any]
    """That of its query, which it calls."""
    compile: Callable[[Any, str], CompiledRead | None]


_OWN = {
    own.name: own
    for own in (
        _Own("count", QuerySet.count, Query.get_count, _compile_count),
        _Own("exists", QuerySet.exists, Query.has_results, _compile_exists),
    )
}
