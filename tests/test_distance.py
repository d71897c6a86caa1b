"""benchmarks/distance.py: what is sent arrives later, whole and in order, and an end arrives behind it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from time import perf_counter

import pytest

from benchmarks.distance import far

SECONDS = 0.02
MUCH = bytes(range(256)) * 20_000


@pytest.fixture
def echoing() -> Iterator[int]:
    """The port of a server that sends back what it is sent, until it hears no more."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=echo, args=(client,), daemon=True).start()

    def echo(client: socket.socket) -> None:
        with client:
            while data := client.recv(1 << 16):
                client.sendall(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]


def received(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := client.recv(1 << 16)):
        data += more
    return data


def test_there_and_back_takes_as_long_as_it_is_far(echoing: int) -> None:
    with far([str(echoing)], SECONDS) as (port,), socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(3):
            began = perf_counter()
            client.sendall(b"here")
            assert received(client, 4) == b"here"
            assert perf_counter() - began >= SECONDS


def test_much_arrives_both_ways_and_the_end_behind_it(echoing: int) -> None:
    with far([str(echoing)], SECONDS) as (port,):
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


def test_each_address_has_its_port(echoing: int) -> None:
    with far([str(echoing), str(echoing)], SECONDS) as ports:
        assert len(set(ports)) == 2
