"""Replies that ended while the database was away for longer than a reader waits: kept until they can be stored.

Only in memory, because the database is what is missing: bounded by number and age, and a loss is logged. One thread
stores them and is there only while there are any; it holds no connection while it waits.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from chat import limits, services
from chat.models import Message, ToolCall
from dbresilience import classify, deadline

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_kept: dict[UUID, Unsaved] = {}
_keeper: threading.Thread | None = None


@dataclass(frozen=True, kw_only=True)
class Unsaved:
    """How a reply ended. `then` is called when that is stored."""

    reply: Message
    content: str
    status: str
    error: str | None
    tool_calls: Sequence[ToolCall]
    since: float
    then: Callable[[], object]


def keep(unsaved: Unsaved) -> None:
    global _keeper
    with _lock:
        _kept.pop(unsaved.reply.pk, None)
        _kept[unsaved.reply.pk] = unsaved
        while len(_kept) > limits.UNSAVED_REPLIES:
            _forget(_kept[next(iter(_kept))], f"there are more than {limits.UNSAVED_REPLIES}")
        if _keeper is None:
            _keeper = threading.Thread(target=_keep_trying, name="chat-unsaved", daemon=True)
            _keeper.start()
    logger.warning("The database is unavailable; a reply that has ended is kept in memory until it can be stored")


def count() -> int:
    with _lock:
        return len(_kept)


def store(reply_id: UUID) -> bool:
    """Store what is kept of a reply; false if nothing is, or if it is not that reply's end any more.

    Repeating it does no harm, so the keeper may be doing the same.
    """
    with _lock:
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
    with _lock:
        is_first = _kept.get(reply_id) is unsaved
        if is_first:
            del _kept[reply_id]
    if not saved:
        logger.info("A kept reply was deleted or started again before it could be stored")
    elif is_first:
        unsaved.then()
    return saved


def _keep_trying() -> None:
    global _keeper
    while True:
        time.sleep(limits.UNSAVED_RETRY_SECONDS)
        with _lock:
            for unsaved in list(_kept.values()):
                if time.monotonic() - unsaved.since > limits.UNSAVED_SECONDS:
                    _forget(unsaved, f"the database was away for more than {limits.UNSAVED_SECONDS:.0f} s")
            waiting = list(_kept.values())
            if not waiting:
                _keeper = None
                return
        try:
            _store_all(waiting)
        finally:
            connections.close_all()


def _store_all(waiting: Sequence[Unsaved]) -> None:
    for unsaved in waiting:
        try:
            with deadline(limits.BACKGROUND_SECONDS):
                store(unsaved.reply.pk)
        except (DatabaseError, InterfaceError) as error:
            if classify(error).status is not None:
                # It is still away; the others would only hear the same.
                return
            logger.exception("A kept reply cannot be stored")
            with _lock:
                _forget(unsaved, "the database refuses it")
        except Exception:
            logger.exception("The keeper of unsaved replies stumbled")


def _forget(unsaved: Unsaved, reason: str) -> None:
    """Caller holds `_lock`."""
    if _kept.get(unsaved.reply.pk) is unsaved:
        del _kept[unsaved.reply.pk]
        logger.error("The end of reply %s is lost: it could not be stored, and %s", unsaved.reply.pk, reason)


def give_up() -> None:
    """The process ends: what could not be stored until now is lost."""
    with _lock:
        for unsaved in list(_kept.values()):
            _forget(unsaved, "its process ends")


def _forget_in_child() -> None:
    """The parent keeps what is the parent's."""
    global _lock, _keeper
    _lock, _keeper = threading.Lock(), None
    _kept.clear()


os.register_at_fork(after_in_child=_forget_in_child)
atexit.register(give_up)
