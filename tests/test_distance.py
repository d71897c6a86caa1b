"""benchmarks/distance.py: what is sent arrives later, whole and in order, and an end arrives behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import perf_counter

from benchmarks.distance import _Way, far

SECONDS = 0.02
MUCH = bytes(range(256)) * 80_000


@contextmanager
def echoing(path: Path | None = None, greeting: bytes = b"") -> Iterator[str]:
    """The address of a server that greets, and sends back what it is sent until it hears no more."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=echo, args=(client,), daemon=True).start()

    def echo(client: socket.socket) -> None:
        with client, suppress(OSError):
            client.sendall(greeting)
            while data := client.recv(1 << 16):
                client.sendall(data)

    listener = socket.create_server(("127.0.0.1", 0)) if path is None else socket.socket(socket.AF_UNIX)
    with listener:
        if path is not None:
            listener.bind(str(path))
            listener.listen()
        threading.Thread(target=serve, daemon=True).start()
        yield str(listener.getsockname()[1]) if path is None else str(path)


def received(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := client.recv(1 << 16)):
        data += more
    return bytes(data)


def test_there_and_back_takes_as_long_as_it_is_far() -> None:
    with (
        echoing() as server,
        far([server], SECONDS) as (port,),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        for _ in range(3):
            began = perf_counter()
            client.sendall(b"here")
            assert received(client, 4) == b"here"
            assert perf_counter() - began >= SECONDS


def test_much_arrives_both_ways_and_the_end_behind_it() -> None:
    with echoing() as server, far([server], SECONDS) as (port,):
        clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(2)]
        senders = [threading.Thread(target=client.sendall, args=(MUCH,)) for client in clients]
        for sender in senders:
            sender.start()
        for client in clients:
            assert received(client, len(MUCH)) == MUCH
        for sender, client in zip(senders, clients, strict=True):
            sender.join()
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""
            client.close()


def test_what_was_sent_before_the_end_arrives_however_late_it_is_read() -> None:
    with (
        echoing() as server,
        far([server], SECONDS) as (port,),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall(MUCH)
        client.shutdown(socket.SHUT_WR)
        threading.Event().wait(0.5)
        assert received(client, len(MUCH) + 1) == MUCH


def test_each_address_has_its_port(tmp_path: Path) -> None:
    with echoing(greeting=b"one") as one, echoing(tmp_path / "two", b"two") as two, far([one, two], SECONDS) as ports:
        for port, greeting in zip(ports, (b"one", b"two"), strict=True):
            with socket.create_connection(("127.0.0.1", port)) as client:
                assert received(client, 3) == greeting


def test_a_server_that_is_not_there_ends_its_own_connection_only(tmp_path: Path) -> None:
    with echoing() as server, far([str(tmp_path / "nobody"), server], SECONDS) as (nobody, port):
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", nobody)) as client:
                assert client.recv(1) == b""
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"here")
            assert received(client, 4) == b"here"


def test_nothing_is_no_end() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        way = _Way(one, other, SECONDS)
        assert way.receive() is None
        assert way.is_open
