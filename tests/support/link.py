"""One connection through the proxy: two sockets, and what passes between them message by message."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING

from tests.support.protocol import ENDS_WITH_READY, READY, Backend, Frontend, Message, error_response

if TYPE_CHECKING:
    from tests.support.proxy import Cut, Proxy


class Side(asyncio.Protocol):
    """One of the two sockets. What is written to it may be delayed or held back, and never overtakes."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.transport: asyncio.Transport | None = None
        self.peer: Side | None = None
        self._waiting: deque[tuple[float, bytes | None]] = deque()
        self._last_due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.link.proxy.transports.add(transport)
        if self.link.ended is not None:
            self.end(self.link.ended)
        elif self.link.swallowed:
            transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.link.received(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is not None:
            self.link.proxy.transports.discard(self.transport)
        self.link.lost(self, exc)

    def send(self, data: bytes | None) -> None:
        """Pass on; None closes, once all that came before has gone."""
        loop = self.link.proxy.loop
        self._last_due = max(self._last_due, loop.time() + self.link.proxy.delay_seconds)
        self._waiting.append((self._last_due, data))
        if self.link.proxy.delay_seconds:
            loop.call_at(self._last_due, self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        now = self.link.proxy.loop.time()
        while self._waiting and self.transport is not None and not self.link.swallowed:
            due, data = self._waiting[0]
            if due > now:
                self.link.proxy.loop.call_at(due, self.flush)
                return
            self._waiting.popleft()
            if data is None:
                self.transport.close()
            else:
                self.transport.write(data)

    def end(self, how: str) -> None:
        if self.transport is None:
            return
        if how == "reset":
            self.transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
        self.transport.abort()


class Link:
    def __init__(self, proxy: Proxy, number: int) -> None:
        self.proxy = proxy
        self.swallowed = False
        self.ended: str | None = None
        self.client = Side(self)
        self.server = Side(self)
        self._denial = proxy.denial
        self._frontend = Frontend(number)
        self._backend = Backend(number)
        self._server_spoke = True
        self._awaited = 0
        """How many ReadyForQuery the server owes."""
        self._sent_cut: Cut | None = None
        self._answered_cut: Cut | None = None
        self._of_earlier = 0
        """How many of them come before the answer that is to be cut off."""

    async def open(self, client: socket.socket) -> None:
        loop = self.proxy.loop
        self.proxy.links.add(self)
        # The client is not read before there is somebody to pass it on to.
        if self._denial is None:
            server = socket.socket()
            server.setblocking(False)
            try:
                await loop.sock_connect(server, ("127.0.0.1", self.proxy.server_port))
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except (OSError, asyncio.CancelledError):
                server.close()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                self.proxy.links.discard(self)
                return
            await loop.connect_accepted_socket(lambda: self.server, server)
        await loop.connect_accepted_socket(lambda: self.client, client)

    # What a test does to it

    def end(self, how: str) -> None:
        self.ended = how
        self.proxy.links.discard(self)
        self.client.end(how)
        self.server.end(how)

    def swallow(self) -> None:
        self.swallowed = True
        for side in (self.client, self.server):
            if side.transport is not None and not side.transport.is_closing():
                side.transport.pause_reading()

    def resume(self) -> None:
        self.swallowed = False
        for side in (self.client, self.server):
            if side.transport is not None and not side.transport.is_closing():
                side.transport.resume_reading()
            side.flush()

    # What passes

    def received(self, side: Side, data: bytes) -> None:
        if self not in self.proxy.links:
            return
        if side is self.client:
            if self._server_spoke:
                self.proxy.round_trips += 1
                self._server_spoke = False
            for message in self._frontend.feed(data):
                if not self._from_client(message):
                    return
        else:
            self._server_spoke = True
            for message in self._backend.feed(data):
                if not self._from_server(message):
                    return
            self._frontend.opaque = self._backend.opaque

    def lost(self, side: Side, exc: Exception | None) -> None:
        if self.ended is not None:
            return
        self.ended = "close"
        self.proxy.links.discard(self)
        other = self.server if side is self.client else self.client
        if exc is not None:
            other.end("reset")
        else:
            other.send(None)

    def _from_client(self, message: Message) -> bool:
        """Pass a message on; False if the connection ends here."""
        self.proxy.messages[message.kind] += 1
        if message.sql:
            self.proxy.statements.append(message.sql)
        if self._denial is not None:
            return self._deny(message)
        for cut in self.proxy.cuts:
            if cut.times and cut.matches(message):
                cut.times -= 1
                if cut.after == "seen":
                    return self._cut(cut)
                if cut.after == "sent":
                    self._sent_cut = cut
                else:
                    self._answered_cut, self._of_earlier = cut, self._awaited
                break
        self._backend.answers_with_a_byte = message.kind in {"SSLRequest", "GSSENCRequest"}
        self._awaited += message.kind in ENDS_WITH_READY
        self.server.send(message.data)
        if self._sent_cut is not None and message.completes_a_request:
            return self._cut(self._sent_cut)
        return True

    def _from_server(self, message: Message) -> bool:
        self._awaited -= message.kind == READY
        if self._answered_cut is not None:
            if self._of_earlier == 0:
                return True if message.kind != READY else self._cut(self._answered_cut)
            self._of_earlier -= message.kind == READY
        self.client.send(message.data)
        return True

    def _deny(self, message: Message) -> bool:
        if message.kind in {"SSLRequest", "GSSENCRequest"}:
            self.client.send(b"N")
            return True
        assert self._denial is not None
        if message.kind == "StartupMessage":
            self.client.send(error_response(*self._denial))
        self.client.send(None)
        return False

    def _cut(self, cut: Cut) -> bool:
        self._sent_cut = self._answered_cut = None
        if cut.then is not None:
            cut.then()
        if cut.how == "swallow":
            self.swallow()
        else:
            self.ended = cut.how
            self.proxy.links.discard(self)
            # The server is to do what it was sent, so its end is closed in order.
            self.server.send(None)
            self.client.end(cut.how)
        cut.happened.set()
        return False
