"""Lets somebody who may see the dashboard go on seeing it while the database, and so their session, is away.

A signed cookie, set when the database has said that they may. It is bound to their session cookie, goes to the
dashboard only, and is looked at only while the database cannot be asked (see `access`).
"""

from __future__ import annotations

from django.conf import settings
from django.core import signing
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.crypto import constant_time_compare, salted_hmac

COOKIE = "dbresilience_dashboard"
LONGEST_SECONDS = 12 * 3600
RENEWED_AFTER_SECONDS = LONGEST_SECONDS // 2
"""So that whoever looks now and then has at least that long in an outage."""
_SALT = "dbresilience.contrib.dashboard.outage_pass"


def give(request: HttpRequest, response: HttpResponseBase, path: str) -> None:
    """Set the cookie, for requests below `path`; without a session cookie there is nothing to bind it to."""
    session = _session_of(request)
    if session:
        response.set_cookie(
            COOKIE,
            signing.dumps({"session": session}, salt=_SALT),
            max_age=LONGEST_SECONDS,
            path=path,
            secure=request.is_secure() or settings.SESSION_COOKIE_SECURE,
            httponly=True,
            samesite="Strict",
        )


def is_fresh(request: HttpRequest) -> bool:
    """Return whether it has a pass that need not be renewed yet."""
    return has_pass(request, longest_seconds=RENEWED_AFTER_SECONDS)


def take_back(request: HttpRequest, response: HttpResponseBase, path: str) -> None:
    """Delete the cookie, if there is one."""
    if COOKIE in request.COOKIES:
        response.delete_cookie(COOKIE, path=path, samesite="Strict")


def has_pass(request: HttpRequest, *, longest_seconds: int | None = None) -> bool:
    """Return whether the request has a valid one: signed by us, not too old, of the session that it comes with.

    Args:
        request: brings its cookies.
        longest_seconds: how old it may be; None means `LONGEST_SECONDS`.
    """
    longest = LONGEST_SECONDS if longest_seconds is None else longest_seconds
    try:
        content = signing.loads(request.COOKIES.get(COOKIE, ""), salt=_SALT, max_age=longest)
        given = content["session"]
    except (signing.BadSignature, KeyError, TypeError):
        return False
    session = _session_of(request)
    return bool(session) and constant_time_compare(given, session)


def _session_of(request: HttpRequest) -> str:
    """Name the session without giving it away."""
    key = request.COOKIES.get(settings.SESSION_COOKIE_NAME, "")
    return salted_hmac(_SALT, key, algorithm="sha256").hexdigest() if key else ""
