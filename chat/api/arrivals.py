"""Whoever asks, and the thread they ask in: looked up in one round trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model, load_backend
from django.utils.crypto import constant_time_compare
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.request import Request

from chat import queries
from chat.queries import Place

T = TypeVar("T")


class Arrival:
    """What one request brings along: `thread_id`, if it names a thread."""

    def __init__(self, thread_id: UUID | None) -> None:
        self.thread_id = thread_id
        self._place: Place | None = None
        self._looked_up = False

    def look_up(self, who: Callable[[], T]) -> T:
        """`who()`, which makes one query, and in the same round trip the place, whosever it is."""
        if self.thread_id is None or self._looked_up:
            return who()
        found, self._place = queries.place_in(self.thread_id, along=who)
        self._looked_up = True
        return found

    def place_of(self, user: Any) -> Place | None:
        """Where `user` wants to go on; None if they have no such thread."""
        # Whoever authenticated them may have a way of their own.
        self.look_up(lambda: None)
        place = self._place
        return place if place is not None and place.thread.owner_id == user.pk else None


class TokenArrival(TokenAuthentication):
    """Its views have an `arrival`."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        self._arrival: Arrival = request.parser_context["view"].arrival
        return super().authenticate(request)

    def authenticate_credentials(self, key: str) -> tuple[Any, Any]:
        find = super().authenticate_credentials
        return self._arrival.look_up(lambda: find(key))


class SessionArrival(SessionAuthentication):
    """Its views have an `arrival`. The session itself is read first, because only it knows whose it is."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        arrival: Arrival = request.parser_context["view"].arrival
        if arrival.thread_id is not None:
            self._look_up(request._request, arrival)
        return super().authenticate(request)

    def _look_up(self, request: Any, arrival: Arrival) -> None:
        session = request.session
        if SESSION_KEY not in session or session.get(BACKEND_SESSION_KEY) not in settings.AUTHENTICATION_BACKENDS:
            return
        backend = load_backend(session[BACKEND_SESSION_KEY])
        user_id = get_user_model()._meta.pk.to_python(session[SESSION_KEY])
        user: Any = arrival.look_up(lambda: backend.get_user(user_id))
        # Only where nothing is left to decide; a session of an earlier password or secret is Django's business.
        if user is not None and constant_time_compare(session.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash()):
            request.user = user
