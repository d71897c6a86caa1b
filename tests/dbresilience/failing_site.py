"""A site on which everything fails in the way its URL names: for `test_unavailable`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import psycopg
from django.contrib import admin
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.db import IntegrityError, InternalError, OperationalError, ProgrammingError
from django.http import Http404, HttpRequest, HttpResponse
from django.template import Context, Engine
from django.template.response import TemplateResponse
from django.urls import path
from rest_framework.views import APIView

from dbresilience import DatabaseUnavailable


def cut() -> OperationalError:
    """What Django raises when the server goes away."""
    error = OperationalError("consuming input failed: server closed the connection at 10.1.2.3")
    error.__cause__ = psycopg.OperationalError(str(error))
    return error


def driver(kind: type[Exception], sqlstate: str) -> Exception:
    error = kind("x")
    error.__cause__ = psycopg.errors.lookup(sqlstate)("x")
    return error


ERRORS: dict[str, Callable[[], Exception]] = {
    "cut": cut,
    "bare": lambda: OperationalError("server closed the connection unexpectedly"),
    "ours": lambda: DatabaseUnavailable("The database of pool 'default' cannot be reached."),
    "read-only": lambda: driver(InternalError, "25006"),
    "deadlock": lambda: driver(OperationalError, "40P01"),
    "starting": lambda: driver(OperationalError, "57P03"),
    "timeout": lambda: driver(OperationalError, "57014"),
    "unknown": lambda: driver(OperationalError, "08007"),
    "integrity": lambda: driver(IntegrityError, "23505"),
    "programming": lambda: driver(ProgrammingError, "42P01"),
    "key": lambda: KeyError("x"),
}


def view(request: HttpRequest, kind: str) -> HttpResponse:
    raise ERRORS[kind]()


async def async_view(request: HttpRequest, kind: str) -> HttpResponse:
    await asyncio.sleep(0)
    raise ERRORS[kind]()


class RestView(APIView):
    """A DRF view without authentication."""

    authentication_classes = ()
    permission_classes = ()

    def post(self, request: Any, kind: str) -> Any:
        raise ERRORS[kind]()

    get = post


class Broken:
    """A template variable that queries."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def value(self) -> str:
        raise ERRORS[self.kind]()


def rendered(request: HttpRequest, kind: str) -> HttpResponse:
    return HttpResponse(Engine().from_string("{{ broken.value }}").render(Context({"broken": Broken(kind)})))


class BrokenTemplate:
    """A template whose rendering queries; TemplateResponse renders after the view returned."""

    def render(self, context: Any = None, request: Any = None) -> str:
        return Engine().from_string("{{ broken.value }}").render(Context(context))


class LateResponse(TemplateResponse):
    """A TemplateResponse that needs no template file."""

    def resolve_template(self, template: Any) -> Any:
        return BrokenTemplate()


def template_response(request: HttpRequest, kind: str) -> TemplateResponse:
    return LateResponse(request, "unused", {"broken": Broken(kind)})


def chained(request: HttpRequest, kind: str) -> HttpResponse:
    try:
        raise ERRORS[kind]()
    except Exception as error:
        raise RuntimeError("the report could not be made") from error


def not_found(request: HttpRequest) -> HttpResponse:
    raise Http404


def fine(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fine")


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    raise cut()


urlpatterns = [
    path("view/<kind>", view),
    path("async/<kind>", async_view),
    path("rest/<kind>", RestView.as_view()),
    path("rendered/<kind>", rendered),
    path("template-response/<kind>", template_response),
    path("chained/<kind>", chained),
    path("missing", not_found),
    path("fine", fine),
    path("admin/", admin.site.urls),
]


class FailingMiddleware:
    """Fails on the way in (?in=kind) or out (?out=kind)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if kind := request.GET.get("in"):
            raise ERRORS[kind]()
        response = self.get_response(request)
        if kind := request.GET.get("out"):
            raise ERRORS[kind]()
        return response


class InterruptedSessionMiddleware(FailingMiddleware):
    """What Django's session middleware makes of a save that the database refused."""

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if kind := request.GET.get("session"):
            try:
                try:
                    raise ERRORS[kind]()
                except OperationalError:
                    raise UpdateError  # noqa: B904  # as Django does
            except UpdateError:
                raise SessionInterrupted("deleted")  # noqa: B904  # as Django does
        return response
