"""Async views that end in every untidy way: for `test_asgi`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import transaction
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

left_behind: set[asyncio.Task[None]] = set()


@sync_to_async
def in_a_transaction() -> None:
    with transaction.atomic():
        Group.objects.create(name="asgi")


async def waits(request: HttpRequest) -> HttpResponse:
    await Group.objects.acount()
    await asyncio.sleep(30)
    return HttpResponse("late")


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    async def parts() -> AsyncIterator[bytes]:
        await in_a_transaction()
        yield b"one"
        async for group in Group.objects.all():
            yield group.name.encode()
            raise RuntimeError("the model's server went away")

    return StreamingHttpResponse(parts())


async def leaves_a_task(request: HttpRequest) -> HttpResponse:
    async def work() -> None:
        await asyncio.sleep(0.05)
        await in_a_transaction()

    task = asyncio.create_task(work())
    left_behind.add(task)
    task.add_done_callback(left_behind.discard)
    return HttpResponse("done")


urlpatterns = [path("waits", waits), path("stream", stream), path("leaves-a-task", leaves_a_task)]
