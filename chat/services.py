"""Every write of the chat: keyword-only, atomic, in as few statements as it takes.

A reply belongs to the newest *attempt* at it. Whoever runs an attempt may only write while it is the newest, so that a
process that everybody thought dead cannot overwrite what came after it.

Locks are taken from the top: the thread, then its messages. So nobody writes below what somebody else deletes, and no
two wait for each other.

A transaction that PostgreSQL undid, or that a lost connection undid for certain, is run again (`retry`): each is a
whole unit, and the keys of what it stores are made here. A single statement that is harmless to repeat is left to its
caller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from django.contrib.auth.models import AbstractBaseUser
from django.db import DatabaseError, IntegrityError, InterfaceError, transaction
from django.db.models import F, QuerySet
from django.db.models.functions import Now

from chat import constraints
from chat.limits import ABANDONED_SECONDS, TITLE_CHARACTERS
from chat.models import Message, Thread, ToolCall
from chat.statements import save_with_tool_calls
from dbresilience import pipeline, retry, retrying

UNTITLED = "New chat"
NEVER_BEGUN = "The database was lost before the assistant was asked."
"""The `error` of a reply that is streaming and that nobody writes, for certain; see `unbegun`."""


class KeyReusedError(Exception):
    """The idempotency key came with another request before."""


class NotRepeatableError(Exception):
    """The reply is complete or still being written."""


class ThreadGoneError(Exception):
    """The thread has been deleted since it was looked up."""


@dataclass(frozen=True, kw_only=True)
class StartedTurn:
    """A question with its reply; `is_new` is false when the same request was made before."""

    thread: Thread
    message: Message
    reply: Message
    is_new: bool = True


def provisional_title(text: str) -> str:
    """What a thread is called until the worker has read it."""
    words = " ".join(text.split())
    return words if len(words) <= 60 else words[:59].rstrip() + "…"


@retry
@transaction.atomic  # so that after a lost connection it is known whether there is a thread: nobody has its key yet
def create_thread(*, owner: AbstractBaseUser, title: str = UNTITLED) -> Thread:
    return Thread.objects.create(owner=owner, title=title)


def rename_thread(*, thread: Thread, title: str) -> Thread:
    """Give a thread another title. Raises ThreadGoneError."""
    thread.title = title[:TITLE_CHARACTERS]
    if not Thread.objects.filter(pk=thread.pk).update(title=thread.title):
        raise ThreadGoneError
    return thread


def delete_thread(*, thread: Thread) -> None:
    """Delete a thread with its messages. Raises ThreadGoneError."""
    if not retry(delete_threads)(threads=Thread.objects.filter(pk=thread.pk)):
        raise ThreadGoneError


@transaction.atomic
def delete_threads(*, threads: QuerySet[Thread]) -> int:
    """Wait for those who write in these threads, then delete all of it; returns how many threads went.

    Not marked by `retry`, since the admin calls it within a transaction of its own.
    """
    # One order for all, and no lock on what the query merely joins: so no two deletions wait for each other.
    locked = threads.order_by("pk").select_for_update(of=("self",))
    ids = list(locked.values_list("pk", flat=True))
    # A tool call is stored under the lock of its reply alone.
    list(Message.objects.filter(thread__in=ids).order_by("pk").select_for_update().values_list("pk"))
    _, counts = Thread.objects.filter(pk__in=ids).delete()
    return counts.get("chat.Thread", 0)


def fingerprint(*, message: str, thread_id: UUID | None) -> str:
    """The same for the same request, so that a key that comes back with another one is noticed."""
    body = json.dumps([message, str(thread_id or "")], ensure_ascii=True)
    return hashlib.sha256(body.encode()).hexdigest()


def start_turn(
    *,
    author: AbstractBaseUser,
    message: str,
    thread: Thread | None = None,
    idempotency_key: UUID | None = None,
    in_doubt: Callable[[Message], object] | None = None,
    ask_for_title: Callable[[Thread], object] | None = None,
) -> StartedTurn:
    """Store the question and an empty reply to it, in a new thread if none is given.

    All of it is one round trip, since nothing is looked up: constraints refuse a key that was there before and a
    thread that is there no more, and a look beforehand would still let two through. `in_doubt` is called with the
    reply when an error leaves open whether it is stored, `ask_for_title` with a new thread, within its transaction.
    Raises KeyReusedError and ThreadGoneError.
    """
    request_fingerprint = fingerprint(message=message, thread_id=thread.pk if thread else None)
    new_thread = thread is None
    thread = thread or Thread(owner=author, title=provisional_title(message))
    question = Message(
        thread=thread,
        role=Message.Role.USER,
        content=message,
        author=author,
        idempotency_key=idempotency_key,
        request_fingerprint=request_fingerprint if idempotency_key else None,
    )
    reply = Message(thread=thread, role=Message.Role.ASSISTANT, status=Message.Status.STREAMING, in_reply_to=question)
    may_be_stored = False
    try:
        for attempt in retrying(idempotent=True):
            with attempt, pipeline():
                if new_thread:
                    thread.save(force_insert=True)
                else:
                    _touch(thread)
                Message.objects.bulk_create([question, reply])
                if new_thread and ask_for_title is not None:
                    ask_for_title(thread)
                may_be_stored = True  # what follows is COMMIT
    except IntegrityError as error:
        if constraints.is_thread_gone(error):
            raise ThreadGoneError from error
        if idempotency_key is not None and constraints.is_repeated_key(error):
            earlier = earlier_turn(
                author=author, idempotency_key=idempotency_key, request_fingerprint=request_fingerprint
            )
            if earlier.message.pk != question.pk:
                return earlier
        # By an attempt that nobody has heard of again.
        elif not constraints.is_stored_already(error):
            raise
    except (DatabaseError, InterfaceError):
        if may_be_stored and in_doubt is not None:
            in_doubt(reply)
        raise
    return StartedTurn(thread=thread, message=question, reply=reply)


def _touch(thread: Thread) -> int:
    """Lock a thread and put it on top of the list; 0 if it is gone."""
    return Thread.objects.filter(pk=thread.pk).update(updated_at=Now())


def earlier_turn(*, author: AbstractBaseUser, idempotency_key: UUID, request_fingerprint: str) -> StartedTurn:
    """What the first request with this key began. Raises KeyReusedError and ThreadGoneError."""
    questions = Message.objects.select_related("thread", "reply")
    question = questions.filter(author=author, idempotency_key=idempotency_key).first()
    if question is None:
        raise ThreadGoneError
    if question.request_fingerprint != request_fingerprint:
        raise KeyReusedError
    return StartedTurn(thread=question.thread, message=question, reply=question.reply, is_new=False)


def _abandoned(replies: QuerySet[Message]) -> QuerySet[Message]:
    return replies.filter(status=Message.Status.STREAMING, updated_at__lt=Now() - timedelta(seconds=ABANDONED_SECONDS))


def _unwritten(replies: QuerySet[Message]) -> QuerySet[Message]:
    return _abandoned(replies) | replies.filter(status=Message.Status.STREAMING, error__isnull=False)


def is_never_begun(reply: Message) -> bool:
    """Whether it is certain that nobody writes a reply, although it is streaming."""
    return reply.status == Message.Status.STREAMING and reply.error is not None


def restart_reply(
    *,
    reply: Message,
    only_abandoned: bool = False,
    in_doubt: Callable[[Message], object] | None = None,
    ask_for_title: Callable[[Thread], object] | None = None,
) -> Message:
    """Empty a reply that broke off and give it to the caller to run again; of two callers one gets it.

    `in_doubt` is called with the reply when an error leaves open whether the caller has got it, `ask_for_title` with
    its thread if that is still called by its first words. Raises NotRepeatableError and ThreadGoneError.
    """
    may_be_stored = False
    try:
        for attempt in retrying():
            may_be_stored = False
            with attempt, transaction.atomic():
                _claim(reply, only_abandoned=only_abandoned)
                if ask_for_title is not None and reply.thread.title == provisional_title(reply.in_reply_to.content):
                    ask_for_title(reply.thread)
                may_be_stored = True  # what follows is COMMIT
    except (DatabaseError, InterfaceError):
        if may_be_stored and in_doubt is not None:
            in_doubt(reply)
        raise
    return reply


def _claim(reply: Message, *, only_abandoned: bool) -> None:
    if not _touch(reply.thread):
        raise ThreadGoneError
    replies = Message.objects.filter(pk=reply.pk, role=Message.Role.ASSISTANT)
    broken = replies.filter(status__in=[Message.Status.INTERRUPTED, Message.Status.FAILED])
    wanted = _unwritten(replies) if only_abandoned else broken | _unwritten(replies)
    claimed = wanted.update(
        status=Message.Status.STREAMING, content="", error=None, attempt=F("attempt") + 1, updated_at=Now()
    )
    if not claimed:
        raise NotRepeatableError
    ToolCall.objects.filter(reply=reply).delete()
    reply.refresh_from_db(fields=["content", "status", "error", "attempt", "updated_at"])


def disown_replies(*, replies: Sequence[Message]) -> int:
    """Note that nobody will ever write these replies, as far as they are stored; returns how many are noted now.

    A reply that has been touched since is somebody else's: its time of the last save tells them apart.
    """
    return Message.objects.filter(
        pk__in=[reply.pk for reply in replies],
        updated_at__in=[reply.updated_at for reply in replies],
        status=Message.Status.STREAMING,
        error__isnull=True,
    ).update(error=NEVER_BEGUN)


@retry(idempotent=True)
def save_reply(
    *, reply: Message, content: str, status: str, error: str | None = None, tool_calls: Sequence[ToolCall] = ()
) -> bool:
    """Store how far a reply has come; false if it is gone or a newer attempt has taken it over.

    Repeating it does no harm, so it may be tried again when nobody knows whether the last COMMIT happened. A reply
    that a reader took for abandoned during an outage is taken back. It is a single statement.
    """
    may_be = [Message.Status.STREAMING, Message.Status.INTERRUPTED, status]
    if tool_calls:
        return save_with_tool_calls(
            reply=reply, content=content, status=status, error=error, from_statuses=may_be, tool_calls=tool_calls
        )
    replies = Message.objects.filter(pk=reply.pk, attempt=reply.attempt, status__in=may_be)
    return bool(replies.update(content=content, status=status, error=error, updated_at=Now()))


def settle_abandoned(*, replies: QuerySet[Message] | None = None) -> int:
    """Mark replies whose process is gone as interrupted, so that they can be tried again."""
    return _abandoned(Message.objects.all() if replies is None else replies).update(
        status=Message.Status.INTERRUPTED, updated_at=Now()
    )


def title_thread(*, thread_id: UUID, provisional: str, title: str) -> bool:
    """Give a thread its title unless somebody has named it in the meantime."""
    return bool(Thread.objects.filter(pk=thread_id, title=provisional).update(title=title[:TITLE_CHARACTERS]))


def delete_threads_untouched_for(*, days: int, batch: int = 500) -> int:
    """Delete old threads, a batch at a time so that no transaction is long; returns how many."""
    old = Thread.objects.filter(updated_at__lt=Now() - timedelta(days=days))
    deleted = 0
    while ids := list(old.order_by("updated_at").values_list("pk", flat=True)[:batch]):
        # Asked for their age once more under the lock: somebody may have spoken in one since.
        deleted += retry(delete_threads)(threads=old.filter(pk__in=ids))
    return deleted
