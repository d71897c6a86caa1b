"""A network of some length before servers: `python -m benchmarks.distance 0.0025 ADDRESS…` delays each way that much.

What arrives is given the time at which it is to leave, so messages that follow each other closely travel together, as
on a wire. A connection is accepted at once, and nothing limits how much is under way. It is a process of its own, so
that it shares no global lock with who is measured; it keeps a processor busy for `WATCH_SECONDS` before each delivery.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from selectors import EVENT_READ, EVENT_WRITE, SelectSelector
from time import perf_counter
from typing import Any

WATCH_SECONDS = 0.0003
"""So long before a delivery it stops sleeping and polls: a sleep ends 0.1 to 0.2 ms late, twice in each round trip."""


@contextmanager
def far(addresses: Sequence[str], round_trip_seconds: float) -> Iterator[list[int]]:
    """Give one local port for each address, which is that far away for the block: a Unix socket's path, or a port."""
    command = [sys.executable, "-m", "benchmarks.distance", str(round_trip_seconds / 2), *addresses]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield [int(process.stdout.readline()) for _ in addresses]
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


class _Way:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, seconds: float) -> None:
        self.source, self.sink, self._seconds = source, sink, seconds
        self._travelling: deque[tuple[float, bytes]] = deque()
        self.is_open = True
        self.is_blocked = False
        """Whether the sink takes no more for now."""

    @property
    def is_over(self) -> bool:
        """Whether all that will ever travel here has arrived."""
        return not self.is_open and not self._travelling

    def receive(self) -> float | None:
        """Take what is there, which may be the end; returns when it is to leave, None if there was nothing."""
        try:
            data = self.source.recv(1 << 16)
        except BlockingIOError:
            return None  # select may be wrong (its manual page, "Bugs")
        except OSError:
            data = b""
        due = perf_counter() + self._seconds
        self._travelling.append((due, data))
        self.is_open = bool(data)
        return due

    def deliver(self) -> None:
        """Send what is due, as far as it is taken."""
        self.is_blocked = False
        while self._travelling and self._travelling[0][0] <= perf_counter():
            due, data = self._travelling.popleft()
            try:
                if not data:
                    self.sink.shutdown(socket.SHUT_WR)
                    return
                sent = self.sink.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._travelling.clear()  # nobody is there any more
                return
            if sent < len(data):
                self._travelling.appendleft((due, data[sent:]))
                self.is_blocked = True
                return


class _Network:
    """All that is under way, in one thread, so that nothing waits for Python's global lock."""

    def __init__(self, addresses: Sequence[str], seconds: float) -> None:
        self._seconds = seconds
        self._selector = SelectSelector()  # epoll sleeps whole milliseconds
        self._ways: dict[socket.socket, _Way] = {}
        """By their source."""
        self._due: deque[tuple[float, _Way]] = deque()
        """When each message is to leave, and where; in that order, since all take as long."""
        self.ports: list[int] = []
        for address in addresses:
            listener = socket.create_server(("127.0.0.1", 0))
            self._selector.register(listener, EVENT_READ, address)
            self.ports.append(listener.getsockname()[1])

    def run(self) -> None:
        while True:
            for key, events in self._selector.select(self._quiet_seconds()):
                end: Any = key.fileobj
                if key.data is not None:
                    self._accept(end, key.data)
                    continue
                way = self._ways[end]
                if events & EVENT_READ and (due := way.receive()) is not None:
                    self._due.append((due, way))
                if events & EVENT_WRITE:
                    self._deliver(self._ways[way.sink])
                self._watch(end)
            now = perf_counter()
            while self._due and self._due[0][0] <= now:
                self._deliver(self._due.popleft()[1])

    def _quiet_seconds(self) -> float | None:
        """How long nothing is to leave; None while nothing is under way."""
        if not self._due:
            return None
        return max(self._due[0][0] - perf_counter() - WATCH_SECONDS, 0.0)

    def _deliver(self, way: _Way) -> None:
        if way.sink not in self._ways:
            return  # both have ended
        was_blocked = way.is_blocked
        way.deliver()
        if way.is_blocked is not was_blocked:
            self._watch(way.sink)
        if way.is_over:
            self._end(way)

    def _watch(self, end: socket.socket) -> None:
        """Have it said when there is something to read at an end, and when a blocked one takes more."""
        if end not in self._ways:
            return
        way = self._ways[end]
        wanted = EVENT_READ * way.is_open | EVENT_WRITE * self._ways[way.sink].is_blocked
        known = self._selector.get_map().get(end)
        if known is None and wanted:
            self._selector.register(end, wanted)
        elif known is not None and not wanted:
            self._selector.unregister(end)
        elif known is not None and known.events != wanted:
            self._selector.modify(end, wanted)

    def _accept(self, listener: socket.socket, address: str) -> None:
        client, _ = listener.accept()
        try:
            server = _connect(address)
        except OSError:
            client.close()  # as a server does that is not there
            return
        self._ways[client] = _Way(client, server, self._seconds)
        self._ways[server] = _Way(server, client, self._seconds)
        for end in (client, server):
            end.setblocking(False)
            with suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which a Unix socket has not
            self._watch(end)

    def _end(self, way: _Way) -> None:
        back = self._ways[way.sink]
        if back.is_over:
            for end in (way.source, way.sink):
                with suppress(KeyError):
                    self._selector.unregister(end)
                del self._ways[end]
                end.close()


def _connect(address: str) -> socket.socket:
    if not address.startswith("/"):
        return socket.create_connection(("127.0.0.1", int(address)))
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(address)
    except OSError:
        server.close()
        raise
    return server


def main() -> None:
    seconds, *addresses = sys.argv[1:]
    network = _Network(addresses, float(seconds))
    for port in network.ports:
        print(port, flush=True)
    network.run()


if __name__ == "__main__":
    main()
