"""The slow-query log: which statement, how long, from where, for which request.

Timed is `execute` as psycopg sees it, without the wait for a connection, which is given apart.
Not timed: rows fetched later from a named cursor, COPY, and BEGIN / COMMIT.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any, NamedTuple
from weakref import ReferenceType

import django
import psycopg
from psycopg import sql

from .process import keep
from .signals import emit, slow_query

logger = logging.getLogger(__name__)

Frame = tuple[CodeType, int]
"""A function that was running, and the line."""


class RequestContext(NamedTuple):
    """The request that is being served: its method and its path without the query string."""

    method: str
    path: str
    request: ReferenceType[Any] | None = None

    @property
    def route(self) -> str | None:
        """The pattern of the path; None until Django has resolved it."""
        match = getattr(self.request and self.request(), "resolver_match", None)
        return None if match is None else f"/{match.route}"


current_request: ContextVar[RequestContext | None] = ContextVar("dbresilience_request", default=None)

# Frames of Django, of this package, of the driver, of third-party wrappers such as the debug
# toolbar and of the standard library are never what a reader of the log can change.
_STANDARD_LIBRARY = sysconfig.get_path("stdlib") + os.sep
_SKIPPED = (
    os.path.dirname(django.__file__) + os.sep,
    os.path.dirname(__file__) + os.sep,
)
_NEVER = (*_SKIPPED, os.path.dirname(psycopg.__file__) + os.sep, _STANDARD_LIBRARY, "<")
_WRAPPERS = (f"{os.sep}debug_toolbar{os.sep}", f"{os.sep}asgiref{os.sep}")
_DJANGOS_APPS = os.path.join(os.path.dirname(django.__file__), "contrib") + os.sep
_SKIPPED_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


@dataclass(frozen=True, slots=True)
class SlowQuery:
    """One slow statement.

    Attributes:
        sql: the statement with its placeholders; whitespace folded.
        parameters: their repr when `slow_query_parameters` is on, else None.
        duration_seconds: time in `execute`.
        wait_seconds: how long this statement waited for its connection before.
        rows: rows returned or touched, -1 if unknown.
        call_site: ``file:line in function`` of the first frame outside Django.
        method: HTTP method of the request, None outside one.
        path: its path, None outside one.
        route: the pattern of that path, without its values; None where Django had not resolved it.
    """

    alias: str
    sql: str
    parameters: str | None
    duration_seconds: float
    wait_seconds: float
    rows: int
    call_site: str
    method: str | None
    path: str | None
    route: str | None = None


@dataclass(frozen=True, slots=True)
class SlowQueryLog:
    """The settings of one alias and the way to report."""

    alias: str
    threshold_seconds: float
    show_parameters: bool

    def report(
        self,
        cursor: Any,
        query: Any,
        params: Any,
        duration_seconds: float,
        wait_seconds: float,
        site: Frame | None = None,
    ) -> None:
        """Send `slow_query` for one finished statement. Never raises: the statement is done.

        Args:
            cursor: what it was executed on.
            query: its text.
            params: its values.
            duration_seconds: how long it took.
            wait_seconds: how long it waited for its connection.
            site: from where it was executed, if not from here.
        """
        try:
            request = current_request.get()
            emit(
                slow_query,
                self.alias,
                query=SlowQuery(
                    alias=self.alias,
                    sql=text_of(query, cursor.connection, show_parameters=self.show_parameters),
                    parameters=repr(params) if self.show_parameters and params is not None else None,
                    duration_seconds=duration_seconds,
                    wait_seconds=wait_seconds,
                    rows=-1 if getattr(cursor, "waits", False) else cursor.rowcount,  # it failed, and has no result
                    call_site=call_site(site),
                    method=request.method if request else None,
                    path=request.path if request else None,
                    route=request.route if request else None,
                ),
            )
        except Exception:
            logger.exception("A slow query could not be reported")


def call_site(frame: Frame | None = None) -> str:
    """Return ``file:line in function`` of the nearest frame that belongs to the application.

    Args:
        frame: that frame, if it is not of what runs now.
    """
    frame = frame or frame_of_application()
    if frame is None:
        return "no code of the application"
    code, line = frame
    return f"{_short(code.co_filename)}:{line} in {code.co_name}"


def frame_of_application() -> Frame | None:
    """Return the nearest frame that belongs to the application; quick, since statements that wait all remember it."""
    frame: FrameType | None = sys._getframe(1)
    library: FrameType | None = None
    while frame is not None:
        filename = frame.f_code.co_filename
        if not _is_skipped(filename):
            break
        # Without a line of the application, that of a package it uses tells more than the thread's first.
        if library is None and _may_be_named(filename):
            library = frame
        frame = frame.f_back
    found = frame or library
    return None if found is None else (found.f_code, found.f_lineno)


def frame_awaiting(running: Any) -> Frame | None:
    """Return the innermost frame of the application that `running`, a coroutine, is suspended in, if there is one.

    In the thread that works for it (`sync_to_async`) it is not on the stack.
    """
    found = None
    while running is not None:
        frame = getattr(running, "cr_frame", None)
        if frame is not None and not _is_skipped(frame.f_code.co_filename):
            found = (frame.f_code, frame.f_lineno)
        running = getattr(running, "cr_await", None)
    return found


def is_of_application(frame: Frame | None) -> bool:
    """Whether `frame` is what a reader can change."""
    return frame is not None and not _is_skipped(frame[0].co_filename)


@lru_cache(1000)
def _is_skipped(filename: str) -> bool:
    return (
        filename.startswith(_SKIPPED)
        or any(part in filename for part in _SKIPPED_PACKAGES)
        or filename.startswith((_STANDARD_LIBRARY, "<"))
    )


@lru_cache(1000)
def _may_be_named(filename: str) -> bool:
    if filename.startswith(_DJANGOS_APPS):
        return True
    return not filename.startswith(_NEVER) and not any(part in filename for part in _WRAPPERS)


def _short(filename: str) -> str:
    for part in _SKIPPED_PACKAGES:
        if part in filename:
            return filename.rsplit(part, 1)[1]
    try:
        relative = os.path.relpath(filename)
    except (OSError, ValueError):  # no working directory any more, or another drive
        return filename
    return filename if relative.startswith("..") else relative


def _without_literals(query: sql.Composable) -> sql.Composable:
    """Show values that were composed into the statement as placeholders, as parameters are shown."""
    if isinstance(query, sql.Literal):
        return sql.Placeholder()
    if isinstance(query, sql.Composed):
        return sql.Composed([_without_literals(part) for part in query])
    return query


def text_of(query: Any, connection: Any, *, show_parameters: bool = False) -> str:
    """Return the text of a statement as it was executed on `connection`, with its placeholders, whitespace folded."""
    if isinstance(query, bytes):
        text = query.decode(errors="replace")
    elif isinstance(query, str):
        text = query
    elif isinstance(query, sql.Composable):
        text = (query if show_parameters else _without_literals(query)).as_string(connection)
    else:
        text = repr(query)
    return " ".join(text.split())


def shortened(text: str) -> str:
    """Return the text of a statement for a message: whitespace folded, 120 characters at most."""
    text = " ".join(text.split())
    return text if len(text) <= 120 else text[:117] + "..."


keep(globals(), "RequestContext", "SlowQuery", "current_request")
