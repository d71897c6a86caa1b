"""A database that cannot serve becomes 503 with Retry-After, wherever the error surfaces.

Middleware cannot do this: `process_exception` sees errors of views only, and an error in another
middleware is turned into a 500 before any outer one sees it. All of Django's layers, sync and
async, call one function to turn an exception into a response; `install()` puts ours before it.
The original exception is logged once, with its traceback, by ``dbresilience.requests``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.core.handlers import exception as handlers
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.template import Context, Engine, TemplateDoesNotExist
from django.template.loader import get_template
from django.urls import set_urlconf

from . import signals
from .errors import alias_of, classify
from .meanings import NOT_TRANSIENT, OUTCOME_UNKNOWN, Classification
from .resources import configured_retry_after_seconds
from .wrapping import wrap_once

requests_log = logging.getLogger("dbresilience.requests")

_TITLES = {503: "Service Unavailable", 504: "Gateway Timeout"}
_AWAY = "The database cannot be reached at the moment. Please try again."
_BUSY = "The database has too much to do at the moment. Please try again."
_SLOW = "The database took too long to answer. Please try again with less."
_OUTCOME_UNKNOWN = (
    "The database was lost while your change was being stored, so it may or may not have been. "
    "Look before you send it again, unless sending it twice is harmless."
)
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

TRACEBACK_SECONDS = 10.0
"""How often refusals of one kind are logged with a traceback; an outage would fill the disk with them."""
_traceback_at: dict[str, float] = {}


def response_for(request: HttpRequest, exc: BaseException) -> HttpResponse | None:
    """Return the 503 (or 504) that `exc` deserves, or None if it is not the database's fault."""
    error, classification = _find_database_error(exc)
    if error is None or classification.status is None:
        return None
    told = _tells_all(classification)
    requests_log.error(
        "%s %s answered %d: %s%s",
        request.method,
        request.path,
        classification.status,
        classification.name,
        "" if told else f" ({' '.join(str(error).split())})",
        exc_info=(type(exc), exc, exc.__traceback__) if told else None,
        extra={
            "event": "request_refused",
            "method": request.method,
            "path": request.path,
            "status_code": classification.status,
            "classification": classification.name,
        },
    )
    response = _render(request, classification)
    # Django would log every 5xx once more.
    response._has_been_logged = True  # type: ignore[attr-defined]
    signals.emit(
        signals.request_refused,
        alias_of(error),
        exception=error,
        classification=classification,
        status=classification.status,
        request=request,
    )
    return response


def _tells_all(classification: Classification) -> bool:
    """Whether this refusal is logged with its traceback: the first of its kind, then one every ten seconds."""
    now = monotonic()
    if now - _traceback_at.get(classification.name, -TRACEBACK_SECONDS) < TRACEBACK_SECONDS:
        return False
    _traceback_at[classification.name] = now
    return True


def _find_database_error(
    exc: BaseException,
) -> tuple[BaseException | None, Classification]:
    """Follow the chain of causes to a database error.

    An exception that is an answer in itself (404, 403, 400) stands, whatever caused it; except
    that Django's session middleware reports a save that the database refused as a deleted
    session, a 400. `raise … from error` is followed always; an error that was merely being handled
    only if it says that the database is away.
    """
    is_answer = isinstance(exc, (Http404, PermissionDenied, BadRequest, SuspiciousOperation))
    if is_answer and not isinstance(exc, SessionInterrupted):
        return None, NOT_TRANSIENT
    seen: set[int] = set()
    explicit = True
    current: BaseException | None = exc
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        found = classify(current)
        if found.status is not None and (explicit or found.outage or is_answer):
            return current, found
        explicit = explicit and current.__cause__ is not None
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return None, NOT_TRANSIENT


def _retry_after_seconds(classification: Classification) -> int:
    """Return what the error knows; else what is configured, the longest if aliases differ."""
    if classification.retry_after_seconds is not None:
        return math.ceil(classification.retry_after_seconds)
    return configured_retry_after_seconds()


def _detail(classification: Classification, *, outcome_unknown: bool) -> str:
    if classification.status == 504:
        return _SLOW
    if outcome_unknown:
        return _OUTCOME_UNKNOWN
    return _AWAY if classification.outage else _BUSY


def _render(request: HttpRequest, classification: Classification) -> HttpResponse:
    status = classification.status
    assert status is not None
    retry_after = _retry_after_seconds(classification)
    outcome_unknown = classification.name == OUTCOME_UNKNOWN.name and request.method not in _SAFE_METHODS
    media_type = request.get_preferred_type(["application/problem+json", "application/json", "text/html"])
    response: HttpResponse
    if media_type == "text/html":
        context = {
            "retry_after": retry_after,
            # A statement that took too long would take as long again, with nobody looking.
            "reload": request.method in ("GET", "HEAD") and status == 503 and not outcome_unknown,
            "status": status,
            "outcome_unknown": outcome_unknown,
            "away": classification.outage,
        }
        response = HttpResponse(_page(context), status=status)
    else:
        problem = {
            "type": "about:blank",
            "title": _TITLES[status],
            "status": status,
            "detail": _detail(classification, outcome_unknown=outcome_unknown),
            "retry_after": retry_after,
        }
        if outcome_unknown:
            problem["outcome_unknown"] = True
        response = JsonResponse(problem, status=status, content_type="application/problem+json")
    response["Retry-After"] = str(retry_after)
    response["Cache-Control"] = "no-store"
    return response


def _page(context: dict[str, Any]) -> str:
    """Render the project's ``503.html``, or ours; without a request, so without the database."""
    try:
        return get_template("503.html").render(context)
    except TemplateDoesNotExist:
        pass
    except Exception:
        requests_log.exception("503.html could not be rendered; the built-in page was sent instead")
    source = Path(__file__).parent / "templates" / "dbresilience" / "unavailable.html"
    return Engine().from_string(source.read_text()).render(Context(context))


def install() -> None:
    """Put `response_for` before Django's conversion of exceptions. Repeating it is harmless."""
    _convert_in("response_for_exception", lambda request, exc: (request, exc))
    # Error pages (404.html and the like) that fail on the database end here.
    _convert_in("handle_uncaught_exception", lambda request, resolver, exc_info: (request, exc_info[1]))


def _convert_in(name: str, pick: Callable[..., tuple[HttpRequest, BaseException]]) -> None:
    def converting(original: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        def convert(*args: Any) -> HttpResponse:
            request, exc = pick(*args)
            response = response_for(request, exc)
            if response is None:
                return original(*args)
            set_urlconf(None)
            return response

        return convert

    wrap_once(handlers, name, converting)


__all__ = ["install", "response_for"]
