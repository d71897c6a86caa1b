"""What a conversation is made of: threads, messages and the tool calls of a reply.

The rules that must never be broken are constraints in the database, so that they also hold for the admin, a shell and
the next service somebody writes. Primary keys are made here, not by the server (see `identifiers`).
"""

from __future__ import annotations

from django.conf import settings
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVector
from django.db import models
from django.db.models import Q
from django.utils import timezone

from chat.identifiers import new_id
from chat.limits import TITLE_CHARACTERS

SEARCH_CONFIG = "english"


class Thread(models.Model):
    """One conversation of one user with the assistant."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="threads", db_index=False
    )
    title = models.CharField(max_length=TITLE_CHARACTERS)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now_add=True, help_text="When somebody last said something here.")

    class Meta:
        indexes = [
            models.Index(fields=["owner", "-updated_at", "-id"], name="chat_thread_of_owner"),
            models.Index(fields=["updated_at"], name="chat_thread_by_age"),
        ]

    def __str__(self) -> str:
        return self.title


class Message(models.Model):
    """Something the user said, or the assistant's reply to it."""

    class Role(models.TextChoices):
        USER = "user", "User"
        ASSISTANT = "assistant", "Assistant"

    class Status(models.TextChoices):
        STREAMING = "streaming", "Streaming"
        COMPLETE = "complete", "Complete"
        INTERRUPTED = "interrupted", "Interrupted"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    thread = models.ForeignKey(Thread, on_delete=models.CASCADE, related_name="messages", db_index=False)
    role = models.CharField(max_length=16, choices=Role)
    content = models.TextField(blank=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.COMPLETE)
    error = models.CharField(max_length=300, null=True, blank=True)  # noqa: DJ001 - null is "nothing went wrong"
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", null=True, db_index=False
    )
    idempotency_key = models.UUIDField(null=True, editable=False)
    request_fingerprint = models.CharField(max_length=64, null=True, editable=False)  # noqa: DJ001
    in_reply_to = models.OneToOneField("self", on_delete=models.CASCADE, related_name="reply", null=True)
    attempt = models.PositiveSmallIntegerField(
        default=1, help_text="How often the assistant was asked; only the newest attempt may write."
    )
    created_at = models.DateTimeField(auto_now_add=True)
    # A reply that may be stored is known by it (`services.disown_replies`): another attempt at storing it keeps it.
    updated_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        indexes = [
            models.Index(fields=["thread", "id"], name="chat_message_of_thread"),
            models.Index(fields=["updated_at"], name="chat_message_streaming", condition=Q(status="streaming")),
            GinIndex(SearchVector("content", config=SEARCH_CONFIG), name="chat_message_search"),
        ]
        constraints = [
            models.CheckConstraint(
                name="chat_message_status_known",
                condition=Q(status__in=["streaming", "complete", "interrupted", "failed"]),
            ),
            models.CheckConstraint(
                name="chat_message_user_or_reply",
                condition=Q(role="user", status="complete", author__isnull=False, in_reply_to__isnull=True)
                | Q(role="assistant", author__isnull=True, in_reply_to__isnull=False),
            ),
            models.CheckConstraint(name="chat_message_user_says_something", condition=~Q(role="user") | ~Q(content="")),
            models.CheckConstraint(
                name="chat_message_key_with_fingerprint",
                condition=Q(idempotency_key__isnull=True, request_fingerprint__isnull=True)
                | Q(role="user", idempotency_key__isnull=False, request_fingerprint__isnull=False),
            ),
            models.UniqueConstraint(fields=["author", "idempotency_key"], name="chat_message_once_per_key"),
        ]

    def __str__(self) -> str:
        return f"{self.role}: {self.content[:60]}"


class ToolCall(models.Model):
    """A tool the assistant used on the way to a reply, with what it got."""

    class Status(models.TextChoices):
        RUNNING = "running", "Running"
        COMPLETE = "complete", "Complete"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    reply = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="tool_calls", db_index=False)
    position = models.PositiveSmallIntegerField()
    name = models.CharField(max_length=64)
    arguments = models.JSONField(default=dict)
    result = models.JSONField(null=True)
    status = models.CharField(max_length=16, choices=Status, default=Status.RUNNING)
    duration_seconds = models.FloatField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["reply", "position"], name="chat_toolcall_position"),
            models.CheckConstraint(
                name="chat_toolcall_status_known", condition=Q(status__in=["running", "complete", "failed"])
            ),
            models.CheckConstraint(
                name="chat_toolcall_duration_positive",
                condition=Q(duration_seconds__isnull=True) | Q(duration_seconds__gte=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name
