"""Replies that ended while the database was away for longer than a reader waits: kept until they can be stored.

Bounded by number and age, and a loss is logged.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from chat import limits, services
from chat.keeping import Keeping
from chat.models import Message, ToolCall
from dbresilience import classify, deadline

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Unsaved:
    """How a reply ended."""

    reply: Message
    content: str
    status: str
    error: str | None
    tool_calls: Sequence[ToolCall]
    since: float


def keep(unsaved: Unsaved) -> None:
    for surplus in _kept.keep(unsaved.reply.pk, unsaved, most=limits.UNSAVED_REPLIES):
        _forget(surplus, f"there are more than {limits.UNSAVED_REPLIES}")
    logger.warning("The database is unavailable; a reply that has ended is kept in memory until it can be stored")


def count() -> int:
    return len(_kept.all())


def store(reply_id: UUID) -> bool:
    """Store what is kept of a reply; false if nothing is, or if it is not that reply's end any more.

    Repeating it does no harm, so the thread that keeps it may be doing the same.
    """
    unsaved = _kept.get(reply_id)
    if unsaved is None:
        return False
    saved = services.save_reply(
        reply=unsaved.reply,
        content=unsaved.content,
        status=unsaved.status,
        error=unsaved.error,
        tool_calls=unsaved.tool_calls,
    )
    _kept.drop(reply_id, unsaved)
    if not saved:
        logger.info("A kept reply was deleted or started again before it could be stored")
    return saved


def _store_all(waiting: Sequence[Unsaved]) -> None:
    for unsaved in waiting:
        if time.monotonic() - unsaved.since > limits.UNSAVED_SECONDS:
            _forget(unsaved, f"the database was away for more than {limits.UNSAVED_SECONDS:.0f} s")
    for unsaved in waiting:
        try:
            with deadline(limits.BACKGROUND_SECONDS):
                store(unsaved.reply.pk)
        except (DatabaseError, InterfaceError) as error:
            if classify(error).status is not None:
                # It is still away; the others would only hear the same.
                return
            logger.exception("A kept reply cannot be stored")
            _forget(unsaved, "the database refuses it")
        except Exception:
            logger.exception("The keeper of unsaved replies stumbled")


def _forget(unsaved: Unsaved, reason: str) -> None:
    if _kept.drop(unsaved.reply.pk, unsaved):
        logger.error("The end of reply %s is lost: it could not be stored, and %s", unsaved.reply.pk, reason)


def give_up() -> None:
    """The process ends: what could not be stored until now is lost."""
    for unsaved in _kept.all():
        _forget(unsaved, "its process ends")


_kept: Keeping[Unsaved] = Keeping("chat-unsaved", _store_all, lambda: limits.UNSAVED_RETRY_SECONDS)
atexit.register(give_up)
