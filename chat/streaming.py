"""Server-sent events: one encoder, and a reader of a turn's channel for WSGI and one for ASGI.

They are iterators and not generators, because a generator that was never begun does not run its `finally`, and then
nobody would tell the turn that its reader has gone. Django closes an iterator that has a `close`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections
from django.http import HttpRequest, StreamingHttpResponse

from chat import limits
from chat.channel import Channel, Event
from chat.conversation import Cancellation

HEARTBEAT = b": still here\n\n"


class Producer(Protocol):
    channel: Channel
    cancellation: Cancellation


def encode(event: Event) -> bytes:
    return f"event: {event.name}\ndata: {json.dumps(event.data, ensure_ascii=False)}\n\n".encode()


def _chunk(events: Iterable[Event]) -> bytes:
    """What has come at once leaves at once; nothing is a heartbeat, by which a client that left is noticed."""
    return b"".join(map(encode, events)) or HEARTBEAT


class _Reader:
    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._channel = producer.channel
        self._connections_held = True

    def close(self) -> None:
        """The reader has gone, or has everything; the latter makes this a no-op."""
        self._producer.cancellation.cancel()


class SyncEvents(_Reader):
    def __iter__(self) -> SyncEvents:
        return self

    def __next__(self) -> bytes:
        if self._connections_held:
            # Sessions and users were looked up on this thread; a pool without leases would keep that connection.
            close_old_connections()
            self._connections_held = False
        events = self._channel.read(limits.HEARTBEAT_SECONDS)
        if events is None:
            raise StopIteration
        return _chunk(events)


class AsyncEvents(_Reader):
    def __aiter__(self) -> AsyncEvents:
        return self

    async def __anext__(self) -> bytes:
        try:
            if self._connections_held:
                await sync_to_async(close_old_connections, thread_sensitive=True)()
                self._connections_held = False
            events = await self._channel.aread(limits.HEARTBEAT_SECONDS)
        except BaseException:
            # Cancelled: under ASGI that is how a client's leaving arrives, and `close` may never be called.
            self.close()
            raise
        if events is None:
            raise StopAsyncIteration
        return _chunk(events)

    def __del__(self) -> None:
        self.close()


def event_stream(request: HttpRequest, producer: Producer) -> StreamingHttpResponse:
    events: Any = AsyncEvents(producer) if isinstance(request, ASGIRequest) else SyncEvents(producer)
    response = StreamingHttpResponse(events, content_type="text/event-stream; charset=utf-8")
    response["Cache-Control"] = "no-cache, no-transform"
    # nginx would gather the events before it passes them on.
    response["X-Accel-Buffering"] = "no"
    return response


def last_event(producer: Producer) -> Event:
    """Wait for the end on behalf of a client that wants the answer in one piece."""
    close_old_connections()
    while (events := producer.channel.read(limits.HEARTBEAT_SECONDS)) is not None:
        for event in events:
            if event.is_last:
                return event
    raise RuntimeError("The turn ended without saying how")
