"""Requests under ASGI that are cancelled, break off or leave work behind: no connection stays out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from django.core.asgi import get_asgi_application
from django.db import connection

from dbresilience import get_database_resources

from . import asgi_site

pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def request(path: str) -> AsyncIterator[ApplicationCommunicator]:
    communicator = ApplicationCommunicator(
        get_asgi_application(),
        {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [], "asgi": {"version": "3.0"},
         "http_version": "1.1", "server": ("testserver", 80)},
    )  # fmt: skip
    await communicator.send_input({"type": "http.request", "body": b""})
    try:
        yield communicator
    finally:
        with suppress(BaseException):
            await communicator.wait(timeout=1)


def out() -> int:
    return get_database_resources().snapshot().in_use


@pytest.fixture(autouse=True)
def _site(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.dbresilience.asgi_site"
    settings.MIDDLEWARE = []
    connection.close()  # what making the test database left in hand


def test_a_client_that_leaves() -> None:
    """Its view is cancelled while it waits for something else."""

    async def leave() -> None:
        async with request("/waits") as communicator:
            await asyncio.sleep(0.3)
            await communicator.send_input({"type": "http.disconnect"})

    async_to_sync(leave)()
    assert out() == 0


# Django's handler does not close the body of a request whose answer breaks off.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stream_that_breaks_off() -> None:
    """Its generator raises after it has queried."""

    async def read() -> list[dict[str, Any]]:
        said = []
        async with request("/stream") as communicator:
            with suppress(Exception):
                while True:
                    said.append(await communicator.receive_output(timeout=2))
        return said

    bodies = [message.get("body") for message in async_to_sync(read)()]
    assert b"one" in bodies
    assert out() == 0


def test_a_task_that_outlives_its_request() -> None:
    """It works on after the answer, and gives back what it took."""

    async def ask() -> None:
        async with request("/leaves-a-task") as communicator:
            await communicator.receive_output(timeout=2)
            while asgi_site.left_behind:
                await asyncio.sleep(0.01)

    async_to_sync(ask)()
    assert asgi_site.Group.objects.filter(name="asgi").exists()
    assert out() == 0


def test_many_at_once() -> None:
    """Twenty that leave in twenty moments."""

    async def leave(after: float) -> None:
        async with request("/waits") as communicator:
            await asyncio.sleep(after)
            await communicator.send_input({"type": "http.disconnect"})

    async def all_of_them() -> None:
        await asyncio.gather(*(leave(number / 100) for number in range(20)))

    async_to_sync(all_of_them)()
    assert out() == 0
