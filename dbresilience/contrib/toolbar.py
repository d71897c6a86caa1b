"""A panel of django-debug-toolbar: what this request did with its connections, and what held them for nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import suppress
from inspect import isawaitable
from typing import Any

from debug_toolbar.panels import Panel
from django.apps import apps
from django.core.checks import CheckMessage, Error
from django.core.exceptions import SynchronousOnlyOperation
from django.http import FileResponse, HttpRequest

from dbresilience import signals
from dbresilience.contrib.toolbar_stats import RequestWatch, stats_of
from dbresilience.slow_queries import SlowQuery
from dbresilience.watching import current_watch

RETRIES = (signals.unit_repeated, signals.read_repeated)
EVENTS = (
    (signals.unit_repeated, "{unit} failed ({classification}, attempt {attempt}) and ran again"),
    (signals.unit_given_up, "{unit} failed ({classification}, attempt {attempt}) and did not run again: {reason}"),
    (signals.read_repeated, "A read lost its connection ({classification}) and was sent again"),
    (signals.commit_looked_up, "A COMMIT was not answered; looked up in {seconds:.3f} s: {outcome} {reason}"),
    (signals.acquire_timed_out, "No connection was had within {waited_seconds:.1f} s"),
    (signals.connection_kept, "A connection is kept to the end of the request, for {reason} left at {call_site}"),
    (signals.cursor_left_open, "A cursor opened by {opened_by} was left open and kept its connection"),
    (signals.statement_overdue, "A statement was cancelled at the deadline of {deadline_seconds} s: {query}"),
)


class _Receiver:
    """Puts one kind of event down for the request that it happened to."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, signal: Any, alias: str, classification: Any = None, **details: Any) -> None:
        watch = current_watch.get()
        if isinstance(watch, RequestWatch):
            watch.retries += signal in RETRIES
            name = getattr(classification, "name", "")
            watch.events.append(f"{alias}: {self._text.format(classification=name, **details).strip()}")


def _put_down_slow_query(query: SlowQuery, **details: Any) -> None:
    watch = current_watch.get()
    if isinstance(watch, RequestWatch):
        watch.slow_queries.append(query)


# Kept here, because signals hold their receivers weakly.
_receivers = [(signal, _Receiver(text)) for signal, text in EVENTS]


class ConnectionsPanel(Panel):  # type: ignore[misc]  # the toolbar has no types
    """The leases of a request, their statements and round trips, and what happened to them.

    What runs after the page was made (a streamed body, the end of the request) is added when the response is closed.
    """

    is_async = True
    title = "Database connections"
    nav_title = "Connections"
    nav_icon = "dbresilience/connections.svg"
    template = "dbresilience/toolbar.html"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._watch = RequestWatch()

    @property
    def nav_subtitle(self) -> str:
        """Say the three numbers that tell most."""
        stats = self.get_stats()
        if not stats:
            return ""
        counted = (_count(len(stats["leases"]), "lease"), _count(stats["round_trips"], "round trip"))
        return f"{', '.join(counted)}, {stats['held_ms']:.0f} ms held"

    @classmethod
    def ready(cls) -> None:
        """Listen to what happens."""
        for signal, receiver in _receivers:
            signal.connect(receiver, dispatch_uid=f"dbresilience.toolbar.{id(signal)}")
        signals.slow_query.connect(_put_down_slow_query, dispatch_uid="dbresilience.toolbar.slow_query")

    @classmethod
    def run_checks(cls) -> list[CheckMessage]:
        """dbresilience.E004: the debug toolbar's panel is used, and `dbresilience` not in INSTALLED_APPS."""
        if apps.is_installed("dbresilience"):
            return []
        hint = "Add 'dbresilience' to INSTALLED_APPS, or take the panel out of DEBUG_TOOLBAR_PANELS."
        return [Error("The panel of dbresilience cannot find its template.", hint=hint, id="dbresilience.E004")]

    def process_request(self, request: HttpRequest) -> Any:
        """Watch the request, whatever thread or task works for it."""
        with self._watch.watching():
            response = super().process_request(request)
        return self._wait_for(response) if isawaitable(response) else self._follow(response)

    async def _wait_for(self, response: Awaitable[Any]) -> Any:
        self._watch.running = response
        try:
            with self._watch.watching():
                return self._follow(await response)
        finally:
            self._watch.running = None

    def _follow(self, response: Any) -> Any:
        # A file is left as it is, for servers that send files by themselves; it asks the database nothing.
        if response.streaming and not isinstance(response, FileResponse):
            watched = self._watched_async if response.is_async else self._watched
            response.streaming_content = watched(response.streaming_content)
        close = response.close

        def close_and_record() -> None:
            close()
            self._record()

        response.close = close_and_record
        return response

    def _watched(self, body: Any) -> Iterator[bytes]:
        try:
            while True:
                with self._watch.watching():
                    try:
                        part = next(body)
                    except StopIteration:
                        return
                yield part
        finally:
            self._record()

    async def _watched_async(self, body: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                with self._watch.watching():
                    try:
                        part = await anext(body)
                    except StopAsyncIteration:
                        return
                yield part
        finally:
            # Django does not close a response whose client has left.
            with suppress(SynchronousOnlyOperation):
                self._record()

    def generate_stats(self, request: HttpRequest, response: Any) -> None:
        """Put down what has happened until the page was made."""
        self.record_stats(stats_of(self._watch))

    def generate_server_timing(self, request: HttpRequest, response: Any) -> None:
        """Tell the browser's own tools, too."""
        self.record_server_timing("held", f"Connections: {self.nav_subtitle}", self.get_stats()["held_ms"])

    def _record(self) -> None:
        """Put down what has happened since, unless the toolbar has forgotten the request."""
        store: Any = self.toolbar.store
        # Before version 6 the toolbar keeps the panels themselves.
        is_kept = not hasattr(store, "exists") or store.exists(self.toolbar.request_id)
        if is_kept and self.get_stats():
            self.record_stats(stats_of(self._watch))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
