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
from select import select
from time import perf_counter

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
    def due(self) -> float | None:
        """When something is to leave next, if anything is."""
        return self._travelling[0][0] if self._travelling and not self.is_blocked else None

    @property
    def is_over(self) -> bool:
        """Whether all that will ever travel here has arrived."""
        return not self.is_open and not self._travelling

    def receive(self) -> None:
        try:
            data = self.source.recv(1 << 16)
        except BlockingIOError:
            return  # select may be wrong (its manual page, "Bugs")
        except OSError:
            data = b""
        self._travelling.append((perf_counter() + self._seconds, data))
        self.is_open = bool(data)

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
        self._listeners = {socket.create_server(("127.0.0.1", 0)): address for address in addresses}
        self._ways: dict[socket.socket, _Way] = {}
        """By their source."""

    @property
    def ports(self) -> list[int]:
        return [listener.getsockname()[1] for listener in self._listeners]

    def run(self) -> None:
        while True:
            ways = list(self._ways.values())
            readers = [*self._listeners, *(way.source for way in ways if way.is_open)]
            due = min((way.due for way in ways if way.due is not None), default=None)
            left = None if due is None else max(due - perf_counter() - WATCH_SECONDS, 0.0)
            ready, free, _ = select(readers, [way.sink for way in ways if way.is_blocked], [], left)
            for readable in ready:
                if readable in self._listeners:
                    self._accept(readable)
                else:
                    self._ways[readable].receive()
            now = perf_counter()
            for way in ways:
                if way.sink in free or (way.due is not None and way.due <= now):
                    way.deliver()
                if way.is_over:
                    self._end(way)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        try:
            server = _connect(self._listeners[listener])
        except OSError:
            client.close()  # as a server does that is not there
            return
        for end in (client, server):
            end.setblocking(False)
            with suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # which a Unix socket has not
        self._ways[client] = _Way(client, server, self._seconds)
        self._ways[server] = _Way(server, client, self._seconds)

    def _end(self, way: _Way) -> None:
        back = self._ways.get(way.sink)
        if back is None or back.is_over:
            for end in (way.source, way.sink):
                self._ways.pop(end, None)
                end.close()


def _connect(address: str) -> socket.socket:
    if not address.startswith("/"):
        return socket.create_connection(("127.0.0.1", int(address)))
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    return server


def main() -> None:
    seconds, *addresses = sys.argv[1:]
    network = _Network(addresses, float(seconds))
    for port in network.ports:
        print(port, flush=True)
    network.run()


if __name__ == "__main__":
    main()
