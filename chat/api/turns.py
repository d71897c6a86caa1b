"""Asking the assistant: a new question, or an old one again."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from chat import queries, services, unbegun, unsaved
from chat.api import serializers
from chat.api.arrivals import Arrival, SessionArrival, TokenArrival
from chat.api.base import ChatAPIView
from chat.api.problems import Conflict, KeyReused, problem
from chat.api.schema import IDEMPOTENCY_KEY, TOKEN_OR_SESSION, turn_responses
from chat.api.throttles import ChatThrottle
from chat.following import Follower
from chat.models import Thread
from chat.patience import Patience
from chat.services import StartedTurn
from chat.streaming import event_stream, last_event
from chat.tasks import ask_for_title
from chat.turns import Turn

NO_THREAD = "thread: there is no such thread of yours; leave it out to begin a new one."
NO_REPLY = "There is no such reply of yours."


class EventStreamRenderer(BaseRenderer):
    """Only so that content negotiation knows the type; streams are not rendered, `chat.streaming` writes them."""

    media_type = "text/event-stream"
    format = "event-stream"


class TurnView(ChatAPIView):
    authentication_classes = [TokenArrival, SessionArrival]
    renderer_classes = [JSONRenderer, EventStreamRenderer]
    throttle_classes = [ChatThrottle]

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        # Before anything asks the database.
        self._began = time.monotonic()
        self.arrival = Arrival(self.named_thread(request))
        super().initial(request, *args, **kwargs)

    def named_thread(self, request: Request) -> UUID | None:
        """The thread that is to be looked up with whoever asks."""
        return None

    def patience(self) -> Patience:
        """What this request leaves to the reply of the time that it may wait for the database."""
        return Patience(spent_seconds=time.monotonic() - self._began)

    def answer(self, request: Request, producer: Turn | Follower) -> HttpResponse:
        """Start it, and tell of it in the form that the client accepts."""
        producer.start()
        if request.accepted_media_type.startswith(EventStreamRenderer.media_type):
            return event_stream(request._request, producer)
        event = last_event(producer)
        return Response(event.data) if event.name == "done" else _failed(event.data)


class ChatView(TurnView):
    def named_thread(self, request: Request) -> UUID | None:
        self._mistake: APIException | None = None
        try:
            asked = serializers.ChatRequest(data=request.data)
            asked.is_valid(raise_exception=True)
        except APIException as error:
            # Told to those only who may come in.
            self._mistake = error
            return None
        self._asked = asked.validated_data
        return self._asked.get("thread")

    @extend_schema(
        operation_id="chat",
        summary="Ask the assistant",
        auth=TOKEN_OR_SESSION,
        request=serializers.ChatRequest,
        parameters=[IDEMPOTENCY_KEY],
        responses=turn_responses(serializers.Answer, 400, 409, 413, 415, 422, 429),
    )
    def post(self, request: Request) -> HttpResponse:
        if self._mistake is not None:
            raise self._mistake
        key = _idempotency_key(request)
        # Read first: when the question is stored, nothing may fail any more before its reply begins.
        place = self.arrival.place_of(request.user)
        if place is None and self.arrival.thread_id is not None:
            raise NotFound(NO_THREAD)
        history = place.history if place else []
        started = self._start(request, self._asked["message"], place.thread if place else None, key)
        if not started.is_new:
            return self.answer(request, Follower(started, patience=self.patience()))
        return self.answer(request, Turn(started, history=history, patience=self.patience()))

    def _start(self, request: Request, message: str, thread: Thread | None, key: UUID | None) -> StartedTurn:
        try:
            return services.start_turn(
                author=request.user,
                message=message,
                thread=thread,
                idempotency_key=key,
                in_doubt=unbegun.disown,
                ask_for_title=ask_for_title,
            )
        except services.KeyReusedError as error:
            raise KeyReused from error
        except services.ThreadGoneError as error:
            raise NotFound(NO_THREAD) from error


class RetryView(TurnView):
    @extend_schema(
        operation_id="retry",
        summary="Ask again for a reply that broke off",
        auth=TOKEN_OR_SESSION,
        request=None,
        responses=turn_responses(serializers.Answer, 409, 429),
    )
    def post(self, request: Request, reply_id: UUID) -> HttpResponse:
        reply = queries.replies_to(request.user).filter(pk=reply_id).first()
        if reply is None:
            raise NotFound(NO_REPLY)
        if unsaved.store(reply.pk):
            # It had ended, and only its end was not stored: there is nothing to ask an assistant for.
            stored = StartedTurn(thread=reply.thread, message=reply.in_reply_to, reply=reply)
            return self.answer(request, Follower(stored, patience=self.patience()))
        unbegun.tell(reply.pk)
        message = reply.in_reply_to
        history = queries.history_before(message)
        try:
            reply = services.restart_reply(reply=reply, in_doubt=unbegun.disown, ask_for_title=ask_for_title)
        except services.ThreadGoneError as error:
            raise NotFound(NO_REPLY) from error
        except services.NotRepeatableError as error:
            raise Conflict("Only a reply that broke off runs again; this one is complete or being written.") from error
        started = StartedTurn(thread=reply.thread, message=message, reply=reply)
        return self.answer(request, Turn(started, history=history, patience=self.patience()))


def _idempotency_key(request: Request) -> UUID | None:
    value = request.headers.get("Idempotency-Key")
    if value is None:
        return None
    try:
        return UUID(value)
    except ValueError as error:
        raise ValidationError({"Idempotency-Key": ["Send a UUID, a new one for each new request."]}) from error


def _failed(told: dict[str, Any]) -> HttpResponse:
    known = ("type", "status", "title", "detail", "retry_after")
    return problem(
        status=told["status"],
        title=told["title"],
        detail=told["detail"],
        retry_after=told.get("retry_after"),
        more={name: value for name, value in told.items() if name not in known},
    )
