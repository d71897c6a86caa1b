"""The threads of a user and what was said in them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics, status
from rest_framework.exceptions import NotFound
from rest_framework.request import Request
from rest_framework.response import Response

from chat import limits, queries, services, watch
from chat.api import serializers
from chat.api.base import ChatAPIView
from chat.api.pagination import MessagePages, ThreadPages
from chat.api.schema import problems
from chat.models import Message, Thread

NO_THREAD = "There is no such thread of yours."


class ThreadsView(ChatAPIView, generics.GenericAPIView[Thread]):
    pagination_class = ThreadPages
    serializer_class = serializers.ThreadOut
    queryset = Thread.objects.none()

    @extend_schema(
        operation_id="list_threads",
        summary="Your threads, the one that was spoken in last first",
        responses={200: serializers.ThreadOut(many=True), **problems()},
    )
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(queries.threads_of(request.user))
        return self.get_paginated_response(serializers.ThreadOut(page, many=True).data)

    @extend_schema(
        operation_id="create_thread",
        summary="Begin an empty thread",
        request=serializers.NewThreadRequest,
        responses={201: serializers.ThreadOut, **problems(400, 413, 415)},
    )
    def post(self, request: Request) -> Response:
        asked = serializers.NewThreadRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        thread = services.create_thread(owner=request.user, **asked.validated_data)
        return Response(serializers.ThreadOut(thread).data, status=status.HTTP_201_CREATED)


class ThreadView(ChatAPIView):
    @extend_schema(operation_id="get_thread", responses={200: serializers.ThreadOut, **problems()})
    def get(self, request: Request, thread_id: UUID) -> Response:
        return Response(serializers.ThreadOut(_own_thread(request, thread_id)).data)

    @extend_schema(
        operation_id="rename_thread",
        request=serializers.RenameRequest,
        responses={200: serializers.ThreadOut, **problems(400, 413, 415)},
    )
    def patch(self, request: Request, thread_id: UUID) -> Response:
        asked = serializers.RenameRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        try:
            thread = services.rename_thread(thread=_own_thread(request, thread_id), **asked.validated_data)
        except services.ThreadGoneError as error:
            raise NotFound(NO_THREAD) from error
        return Response(serializers.ThreadOut(thread).data)

    @extend_schema(operation_id="delete_thread", responses={204: None, **problems()})
    def delete(self, request: Request, thread_id: UUID) -> HttpResponse:
        thread = _own_thread(request, thread_id)
        try:
            services.delete_thread(thread=thread)
        except services.ThreadGoneError as error:
            raise NotFound(NO_THREAD) from error
        # Afterwards, so that a turn cannot save its end into a thread that is about to go.
        watch.interrupt_thread(thread_id)
        return Response(status=status.HTTP_204_NO_CONTENT)


class MessagesView(ChatAPIView, generics.GenericAPIView[Message]):
    pagination_class = MessagePages
    serializer_class = serializers.MessageOut
    queryset = Message.objects.none()

    @extend_schema(
        operation_id="list_messages",
        summary="What was said in a thread, oldest first, with the tool calls of each reply",
        responses={200: serializers.MessageOut(many=True), **problems()},
    )
    def get(self, request: Request, thread_id: UUID) -> Response:
        page: list[Message] = self.paginate_queryset(queries.messages_in(_own_thread(request, thread_id)))
        _settle(page)
        return self.get_paginated_response(serializers.MessageOut(page, many=True).data)


def _own_thread(request: Request, thread_id: UUID) -> Thread:
    thread = queries.threads_of(request.user).filter(pk=thread_id).first()
    if thread is None:
        raise NotFound(NO_THREAD)
    return thread


def _settle(page: list[Any]) -> None:
    """A reply whose process is gone would look as if it were being written for ever."""
    long_ago = timezone.now() - timedelta(seconds=limits.ABANDONED_SECONDS)
    stale = [m for m in page if m.status == Message.Status.STREAMING and m.updated_at < long_ago]
    if stale and services.settle_abandoned(replies=Message.objects.filter(pk__in=[m.pk for m in stale])):
        for message in stale:
            message.status = Message.Status.INTERRUPTED
