"""The chat page: one document, filled in by its modules through the API."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from uuid import UUID

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from chat.limits import MESSAGE_CHARACTERS

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "font-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

View = Callable[..., HttpResponse]


def content_security_policy(view: View) -> View:
    """Allow what this site serves itself, and nothing inline.

    Set by header because Django's own support begins with 6.0.
    """

    @wraps(view)
    def with_policy(request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        response = view(request, *args, **kwargs)
        response.headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
        return response

    return with_policy


@require_safe
@never_cache
@login_required
@ensure_csrf_cookie
@content_security_policy
def index(request: HttpRequest) -> HttpResponse:
    """The page, on the thread that `?thread=` names, if it names one."""
    return render(
        request,
        "chat/index.html",
        {
            "thread": thread_in_address(request.GET.get("thread", "")),
            "message_length": MESSAGE_CHARACTERS,
        },
    )


def thread_in_address(value: str) -> str:
    """The id in its usual form; anything else counts as no thread."""
    try:
        return str(UUID(value))
    except ValueError:
        return ""
