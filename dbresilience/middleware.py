"""Two small middlewares: probes that answer before anything else, and the request's name for logs.

Neither is needed for 503s; see `unavailable`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from weakref import ref

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from . import probes, scraping
from .slow_queries import RequestContext, current_request

GetResponse = Callable[[HttpRequest], Any]
Probe = Callable[[HttpRequest], HttpResponse]


class _Middleware:
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)  # type: ignore[type-var]  # typed for functions only


class ProbeMiddleware(_Middleware):
    """Answers the probes whatever the `Host` header, before sessions and log-in.

    Put it first. Subclass it to change `probes`: a path for each function of `probes`, and for `scraping.metrics`.
    """

    probes: dict[str, Probe] = {
        "/livez": probes.livez,
        "/readyz": probes.readyz,
        "/api/health/db": probes.database,
        "/metrics": scraping.metrics,
    }

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._answer(request)
        probe = self._probe(request)
        return probe(request) if probe is not None else self.get_response(request)

    async def _answer(self, request: HttpRequest) -> HttpResponseBase:
        probe = self._probe(request)
        if probe is None:
            return await self.get_response(request)  # type: ignore[no-any-return]
        if probe is probes.livez:
            return probe(request)
        return await sync_to_async(probe, thread_sensitive=False)(request)

    def _probe(self, request: HttpRequest) -> Probe | None:
        return self.probes.get(request.path_info) if request.method in ("GET", "HEAD") else None


class RequestContextMiddleware(_Middleware):
    """Lets the slow-query log name the request."""

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._run(request)
        token = current_request.set(RequestContext(request.method or "", request.path, ref(request)))
        try:
            return self.get_response(request)  # type: ignore[no-any-return]
        finally:
            current_request.reset(token)

    async def _run(self, request: HttpRequest) -> HttpResponseBase:
        token = current_request.set(RequestContext(request.method or "", request.path, ref(request)))
        try:
            return await self.get_response(request)  # type: ignore[no-any-return]
        finally:
            current_request.reset(token)
