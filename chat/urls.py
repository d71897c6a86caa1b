"""The addresses of the chat."""

from __future__ import annotations

from django.urls import path

from chat import views
from chat.api.auth import TokenView
from chat.api.threads import MessagesView, ThreadsView, ThreadView
from chat.api.turns import ChatView, RetryView

urlpatterns = [
    path("", views.index, name="index"),
    path("api/auth/token", TokenView.as_view(), name="token"),
    path("api/chat", ChatView.as_view(), name="chat"),
    path("api/messages/<uuid:reply_id>/retry", RetryView.as_view(), name="retry"),
    path("api/threads", ThreadsView.as_view(), name="threads"),
    path("api/threads/<uuid:thread_id>", ThreadView.as_view(), name="thread"),
    path("api/threads/<uuid:thread_id>/messages", MessagesView.as_view(), name="messages"),
]
