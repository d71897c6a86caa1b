"""What the chat reads: each function is one list or one object, in a fixed number of queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser
from django.contrib.postgres.search import SearchHeadline, SearchQuery, SearchVector
from django.db.models import Exists, OuterRef, Prefetch, QuerySet

from chat.limits import HISTORY_MESSAGES
from chat.models import SEARCH_CONFIG, Message, Thread, ToolCall
from dbresilience import gather

History = list[tuple[str, str]]
"""What a model is told of what was said before: role and content of each message, oldest first."""


def threads_of(owner: AbstractBaseUser) -> QuerySet[Thread]:
    return Thread.objects.filter(owner=owner)


def messages_in(thread: Thread) -> QuerySet[Message]:
    return Message.objects.filter(thread=thread).prefetch_related(_tool_calls())


def replies_to(owner: AbstractBaseUser) -> QuerySet[Message]:
    return Message.objects.filter(thread__owner=owner, role=Message.Role.ASSISTANT).select_related(
        "thread", "in_reply_to"
    )


def stored_reply(reply_id: UUID) -> Message | None:
    """A reply with its thread, question and tool calls; None when it has been deleted."""
    found = Message.objects.select_related("thread", "in_reply_to").prefetch_related(_tool_calls())
    return found.filter(pk=reply_id).first()


def _tool_calls() -> Prefetch:
    return Prefetch("tool_calls", queryset=ToolCall.objects.order_by("position"))


@dataclass(frozen=True)
class Place:
    """Where to go on: a thread and the last that was said in it."""

    thread: Thread
    history: History


T = TypeVar("T")


def place_in(thread_id: UUID, *, along: Callable[[], T]) -> tuple[T, Place | None]:
    """A place, if there is that thread, and what `along` reads with one query, in one round trip.

    It may be anybody's: its owner is to be compared with who `along` finds, which costs less than joins by a key that
    is known before.
    """
    messages = _last(Message.objects.filter(thread=thread_id))
    found, thread, latest = gather(along, Thread.objects.filter(pk=thread_id), messages)
    return found, Place(thread[0], latest[::-1]) if thread else None


def history_before(message: Message) -> History:
    """The last messages before this one."""
    return list(_last(Message.objects.filter(thread_id=message.thread_id, pk__lt=message.pk)))[::-1]


def _last(messages: QuerySet[Message]) -> QuerySet[Message, tuple[str, str]]:
    """Newest first. Empty replies say nothing to a model."""
    return messages.exclude(content="").order_by("-pk").values_list("role", "content")[:HISTORY_MESSAGES]


def search_messages(*, owner_id: Any, text: str, before: UUID | None = None, limit: int = 5) -> list[dict[str, Any]]:
    """Full-text search over everything said in the owner's threads, newest first."""
    query = SearchQuery(text, config=SEARCH_CONFIG, search_type="websearch")
    # What an earlier search found would be found again, each time at greater length.
    about_searches = ToolCall.objects.filter(reply=OuterRef("pk"), name="search_my_messages")
    found = (
        Message.objects.filter(~Exists(about_searches), thread__owner_id=owner_id)
        .annotate(search=SearchVector("content", config=SEARCH_CONFIG))
        .filter(search=query)
    )
    if before is not None:
        found = found.filter(pk__lt=before)
    snippet = SearchHeadline(
        "content", query, config=SEARCH_CONFIG, start_sel="«", stop_sel="»", max_words=30, min_words=10
    )
    rows = found.order_by("-pk")[:limit].annotate(snippet=snippet)
    return [
        {
            "thread": {"id": str(row["thread_id"]), "title": row["thread__title"]},
            "role": row["role"],
            "said_at": row["created_at"].isoformat(timespec="seconds"),
            "snippet": row["snippet"],
        }
        for row in rows.values("thread_id", "thread__title", "role", "created_at", "snippet")
    ]


def first_message(thread_id: UUID) -> Message | None:
    return Message.objects.select_related("thread").filter(thread_id=thread_id).order_by("pk").first()
