"""A network of some length before servers: `python -m benchmarks.distance 0.0025 ADDRESS…` delays each way that much.

A process of its own, so that it takes nothing from who is measured. What arrives is given the time at which it is to
leave, so messages that follow each other closely travel together, as on a wire.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue


@contextmanager
def far(addresses: Sequence[str], round_trip_seconds: float) -> Iterator[list[int]]:
    """For the block, ports from which these are that far away: paths of Unix sockets, and other ports."""
    command = [sys.executable, "-m", "benchmarks.distance", str(round_trip_seconds / 2), *addresses]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield [int(process.stdout.readline()) for _ in addresses]
    finally:
        process.terminate()
        process.wait(timeout=10)
        process.stdout.close()


def _connect(address: str) -> socket.socket:
    if not address.startswith("/"):
        server = socket.create_connection(("127.0.0.1", int(address)))
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server
    server = socket.socket(socket.AF_UNIX)
    server.connect(address)
    return server


def _serve(listener: socket.socket, address: str, seconds: float) -> None:
    while True:
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _connect(address)
        for source, sink in ((client, server), (server, client)):
            travelling: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            threading.Thread(target=_receive, args=(source, travelling, seconds), daemon=True).start()
            threading.Thread(target=_deliver, args=(sink, travelling), daemon=True).start()


def _receive(source: socket.socket, travelling: SimpleQueue[tuple[float, bytes]], seconds: float) -> None:
    data = b" "
    while data:
        try:
            data = source.recv(1 << 16)
        except OSError:
            data = b""
        travelling.put((time.perf_counter() + seconds, data))


def _deliver(sink: socket.socket, travelling: SimpleQueue[tuple[float, bytes]]) -> None:
    while True:
        due, data = travelling.get()
        left = due - time.perf_counter()
        if left > 0:
            time.sleep(left)
        with suppress(OSError):
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


def main() -> None:
    seconds, *addresses = sys.argv[1:]
    for address in addresses:
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_serve, args=(listener, address, float(seconds))).start()
        print(listener.getsockname()[1], flush=True)


if __name__ == "__main__":
    main()
