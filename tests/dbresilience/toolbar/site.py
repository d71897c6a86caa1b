"""Views that use a database in every way that the panel has to tell apart; sync ones and async ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.template import Context, Engine
from django.urls import path

from dbresilience import gather, pipeline, retry

alias = "default"
"""What the views ask; each test has its own."""

PAGE = "<html><head></head><body>%s</body></html>"


def page(text: object) -> HttpResponse:
    return HttpResponse(PAGE % text)


def ask(number: int) -> int:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT %s::int", [number])
        return int(cursor.fetchone()[0])


def queries(request: HttpRequest, number: int) -> HttpResponse:
    """That many queries, slowly, so that concurrent requests meet."""
    for _ in range(number):
        ask(number)
        time.sleep(0.02)
    return page(number)


def holds(request: HttpRequest) -> HttpResponse:
    """A transaction around something slow."""
    with transaction.atomic(using=alias):
        ask(1)
        time.sleep(0.15)
        ask(2)
    return page("held")


def batches(request: HttpRequest) -> HttpResponse:
    groups = Group.objects.using(alias)
    first = groups.filter(pk=0).first
    named, count, none = gather(groups.filter(name="one"), groups.count, first, using=alias)
    with pipeline(using=alias):
        changed = [groups.filter(name=f"group {number}").update(name="other") for number in range(3)]
        Group.objects.using(alias).bulk_create([Group(name=request.GET.get("name", "new"))])
    return page([named, count, none, changed])


def keeps(request: HttpRequest) -> HttpResponse:
    """Leaves something on the session."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SET work_mem = '8MB'")
    return page("kept")


def fails_once(request: HttpRequest) -> HttpResponse:
    attempts = []

    @retry(using=alias)
    def unit() -> None:
        with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            attempts.append(1)
            if len(attempts) == 1:
                cursor.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    unit()
    return page(len(attempts))


def slow(request: HttpRequest) -> HttpResponse:
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [0.12])
    return page("slow")


def streams(request: HttpRequest, number: int) -> HttpResponseBase:
    """Asks in its body only, which outlives the view."""

    def parts() -> Iterator[bytes]:
        for _ in range(number):
            yield str(ask(number)).encode()
            time.sleep(0.02)

    return StreamingHttpResponse(parts())


def template(request: HttpRequest) -> HttpResponse:
    text = Engine().from_string("{% for group in groups %}{{ group }}{% endfor %}")
    return page(text.render(Context({"groups": Group.objects.using(alias)})))


async def async_queries(request: HttpRequest, number: int) -> HttpResponse:
    """In threads, in tasks, and by the ORM's own async methods."""
    for _ in range(number):
        await sync_to_async(ask)(number)
        await asyncio.sleep(0.01)
    await asyncio.gather(*(Group.objects.using(alias).acount() for _ in range(number)))
    return page(number)


async def async_streams(request: HttpRequest, number: int) -> HttpResponseBase:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(number):
            yield str(await sync_to_async(ask)(number)).encode()
            await asyncio.sleep(0.01)

    return StreamingHttpResponse(parts())


urlpatterns = [
    path("queries/<int:number>", queries),
    path("holds", holds),
    path("batches", batches),
    path("keeps", keeps),
    path("fails-once", fails_once),
    path("slow", slow),
    path("streams/<int:number>", streams),
    path("template", template),
    path("async/queries/<int:number>", async_queries),
    path("async/streams/<int:number>", async_streams),
]
