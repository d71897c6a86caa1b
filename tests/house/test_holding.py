"""What docs/howto/hold-connections-briefly.md says: which code keeps its connection, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import Client
from django.urls import path

from dbresilience import get_database_resources

pytestmark = pytest.mark.django_db(transaction=True)


def in_use() -> int:
    return get_database_resources().snapshot().in_use


def names(page_size: int) -> Iterator[str]:
    """Everybody, without holding a connection while the consumer takes its time."""
    last = 0
    while page := list(User.objects.filter(pk__gt=last).order_by("pk")[:page_size]):
        yield from (user.username for user in page)
        last = page[-1].pk


def by_iterator(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(str(in_use()) for _ in User.objects.iterator(chunk_size=1))


def by_pages(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(str(in_use()) for _ in names(1))


def ordinary(request: HttpRequest) -> HttpResponse:
    list(User.objects.all())
    return HttpResponse(str(in_use()))


@transaction.non_atomic_requests
def excepted(request: HttpRequest) -> HttpResponse:
    return ordinary(request)


class Urls:
    urlpatterns = [path(view.__name__, view) for view in (by_iterator, by_pages, ordinary, excepted)]


@pytest.fixture
def site(settings: Any) -> Client:
    settings.ROOT_URLCONF = Urls
    settings.MIDDLEWARE = []
    for number in range(3):
        User.objects.create(username=f"user{number}")
    return Client()


@pytest.mark.parametrize(("view", "held"), [("by_iterator", b"111"), ("by_pages", b"000")])
def test_a_stream_that_reads_from_a_cursor_holds_to_its_end(site: Client, view: str, held: bytes) -> None:
    """`iterator()` has a cursor open on the server; pages have none."""
    assert b"".join(site.get(f"/{view}")) == held  # type: ignore[arg-type]
    assert in_use() == 0


def test_atomic_requests_hold_for_the_whole_view(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first query on; `non_atomic_requests` excepts one."""
    assert site.get("/ordinary").content == b"0"
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert site.get("/ordinary").content == b"1"
    assert site.get("/excepted").content == b"0"


def test_atomic_requests_do_not_last_for_a_stream(site: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Django ends the transaction when the view returns; the body is made later."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    assert b"".join(site.get("/by_pages")) == b"000"  # type: ignore[arg-type]


def test_awaiting_holds_nothing(site: Client) -> None:
    """An asynchronous query gives its connection back like any other; `aiterator()` holds like `iterator()`."""

    async def look() -> list[int]:
        seen = []
        await User.objects.acount()
        await asyncio.sleep(0)
        seen.append(in_use())
        async for _ in User.objects.all():
            seen.append(in_use())
            break
        seen += [in_use() async for _ in User.objects.aiterator(chunk_size=1)]
        return [*seen, in_use()]

    assert async_to_sync(look)() == [0, 0, 1, 1, 1, 0]


def test_an_advisory_lock_of_the_transaction_ends_with_it(site: Client) -> None:
    """That of the session keeps the connection to the end of the request."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(4711)")
    assert in_use() == 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(4711)")
    assert in_use() == 1
    connection.close()  # as Django does at the end of a request
    assert in_use() == 0
