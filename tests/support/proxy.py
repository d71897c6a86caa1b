"""A network between a client and PostgreSQL that a test can break: at any time, in any way, at any message.

`with Proxy(server.port) as proxy: psycopg.connect(proxy.url(server.url()))`, then `proxy.refuse()`, `reset()`,
`cut()`, `swallow()`, `delay(0.1)`, `deny("57P03", …)` or `cut_when(is_commit, after=SENT)`; `proxy.restore()` ends it.
Every method has taken effect when it returns. A black hole is one for connections that are opened (their SYN gets no
answer) and for what is sent on others; the kernel still confirms the receipt of the latter, which a network would not.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.link import Link
from tests.support.ports import free_port
from tests.support.protocol import Message

SEEN = "seen"
"""The message reached the proxy and goes no further."""
SENT = "sent"
"""The server has the message; its answer goes nowhere."""
ANSWERED = "answered"
"""The server has done it and said so; the answer goes nowhere."""


@dataclass
class Cut:
    """What `Proxy.cut_when` is to do, and when it was done."""

    matches: Callable[[Message], bool]
    after: str
    how: str
    times: int
    then: Callable[[], None] | None
    happened: threading.Event = field(default_factory=threading.Event)


class Proxy:
    """A TCP proxy in a thread of its own.

    Attributes:
        port: where clients connect.
        server_port: where new connections are led; may be set to another server's.
        opened_at: `time.monotonic()` of every connection that was opened, whatever became of it. Connections that
            are refused or swallowed are opened by nobody, so they are not here.
        round_trips: how often a client spoke after the server had; connecting counts too.
        messages: clients' messages by name, as the manual calls them.
        statements: the text of every Query and Parse, in order.
    """

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self.server_port = server_port
        self.delay_seconds = 0.0
        self.denial: tuple[str, str] | None = None
        self.swallows = False
        self.cuts: list[Cut] = []
        self.links: set[Link] = set()
        self.transports: set[asyncio.Transport] = set()
        self.opened_at: list[float] = []
        self.round_trips = 0
        self.messages: Counter[str] = Counter()
        self.statements: list[str] = []
        self._resets = False
        self._fillers: dict[object, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[object] = []

    def __enter__(self) -> Proxy:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        self._listener.bind(("127.0.0.1", self.port))
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: self._errors.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._do(self._listen)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._do(self._stop_listening)
        self.cut()
        asyncio.run_coroutine_threadsafe(self._end_tasks(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()
        self._listener.close()
        if error is None:
            assert not self._errors, self._errors

    def url(self, server_url: str) -> str:
        """The URL of a server's database, by way of this proxy."""
        return server_url.replace(f":{self.server_port}/", f":{self.port}/")

    # What may happen to a network

    def restore(self) -> None:
        """All is well; what was swallowed arrives."""
        self._do(self._listen)

    def refuse(self) -> None:
        """Nobody listens. Open connections stay; `cut` ends them."""
        self._do(self._refuse)

    def reset(self) -> None:
        """Open connections are reset, new ones as soon as they are opened."""
        self._do(self._reset)

    def cut(self) -> None:
        """Open connections end in an orderly way, as when a process closes them."""
        self._do(lambda: self._end_all("close"))

    def swallow(self) -> None:
        """A black hole: nothing arrives, no error is seen, on neither side."""
        self._do(self._swallow)

    def delay(self, seconds: float) -> None:
        """What is sent from now on arrives so much later, in each direction."""
        self.delay_seconds = seconds

    def deny(self, sqlstate: str, text: str) -> None:
        """Who connects is told FATAL, in the server's place; `deny("57P03", "the database system is starting up")`."""
        self._do(self._listen)
        self.denial = (sqlstate, text)

    def cut_when(
        self,
        matches: Callable[[Message], bool],
        *,
        after: str,
        how: str = "reset",
        times: int = 1,
        then: Callable[[], None] | None = None,
    ) -> Cut:
        """Cut a connection at a message of its client.

        Args:
            matches: called in the proxy's thread with each message of any client.
            after: `SEEN`, `SENT` or `ANSWERED`. A Parse, Bind or Execute is only done with the Sync that follows.
            how: "reset", "close", or "swallow": that connection becomes a black hole.
            times: so often, then never again.
            then: called, in the proxy's thread, just before the client can notice; such as `proxy.refuse`.
        """
        cut = Cut(matches, after, how, times, then)
        self.cuts.append(cut)
        return cut

    # What was seen

    @property
    def open(self) -> int:
        return len(self.links)

    def most_opened_within(self, seconds: float, *, since: float = 0.0) -> int:
        """The most connections opened in any period of that length."""
        times = [at for at in self.opened_at if at >= since]
        return max((sum(1 for at in times if first <= at < first + seconds) for first in times), default=0)

    # In the proxy's thread

    def _do(self, work: Callable[[], None]) -> None:
        if threading.current_thread() is self._thread:
            work()
            return

        async def done() -> None:
            work()
            # Aborted transports close their sockets in the next round of the loop.
            await asyncio.sleep(0)
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(done(), self.loop).result(5)

    def _listen(self) -> None:
        self.denial = None
        self._resets = self.swallows = False
        for filler in self._fillers.values():
            filler.close()
        self._listener.listen(128)
        self.loop.add_reader(self._listener, self._accept)
        for link in list(self.links):
            link.resume()

    def _stop_listening(self) -> None:
        self.loop.remove_reader(self._listener)
        for filler in self._fillers.values():
            filler.close()

    def _refuse(self) -> None:
        self._stop_listening()
        # The port stays ours; connecting to a port that is bound and not listened on is refused.
        self._listener.shutdown(socket.SHUT_RDWR)

    def _reset(self) -> None:
        self._listen()
        self._resets = True
        self._end_all("reset")

    def _end_all(self, how: str) -> None:
        for link in list(self.links):
            link.end(how)

    def _swallow(self) -> None:
        self.swallows = True
        self.loop.remove_reader(self._listener)
        for link in list(self.links):
            link.swallow()
        # Linux drops the SYN of a connection that the queue of a listener has no room for.
        self._listener.listen(0)
        while True:
            filler = socket.socket()
            filler.settimeout(0.05)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                filler.close()
                return
            self._fillers[filler.getsockname()] = filler

    def _accept(self) -> None:
        try:
            client, address = self._listener.accept()
        except OSError:
            return
        if self._fillers.pop(address, None):
            client.close()
            return
        self.opened_at.append(time.monotonic())
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        task = self.loop.create_task(Link(self, len(self.opened_at)).open(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end_tasks(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # Also those of links that have ended and were to close behind what is delayed or held back.
        for transport in self.transports:
            transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
