"""Replies that may be stored and that nobody writes: the COMMIT of their question was lost with the database.

This process knows that it never began them; that is told to whoever asks again here at once, and to the database as
soon as it can be reached, so that other processes need not wait until they look abandoned. Only a hint: what is
forgotten is taken for abandoned later, by its age.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from chat import limits, services
from chat.models import Message
from chat.outages import note
from dbresilience import deadline

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_unbegun: dict[UUID, tuple[Message, float]] = {}
_teller: threading.Thread | None = None


def disown(reply: Message) -> None:
    """Remember that nobody writes `reply`, of which nobody knows whether it is stored."""
    global _teller
    with _lock:
        _unbegun.pop(reply.pk, None)
        _unbegun[reply.pk] = (reply, time.monotonic())
        while len(_unbegun) > limits.UNBEGUN_REPLIES:
            del _unbegun[next(iter(_unbegun))]
        if _teller is None:
            _teller = threading.Thread(target=_keep_telling, name="chat-unbegun", daemon=True)
            _teller.start()


def count() -> int:
    with _lock:
        return len(_unbegun)


def tell(reply_id: UUID) -> None:
    """Let the database know of this reply now, if this process disowned it."""
    with _lock:
        found = _unbegun.get(reply_id)
    if found is not None:
        services.disown_replies(replies=[found[0]])


def _keep_telling() -> None:
    global _teller
    while True:
        time.sleep(limits.UNBEGUN_TELL_SECONDS)
        with _lock:
            waiting = list(_unbegun.values())
            if not waiting:
                _teller = None
                return
        _tell_all([reply for reply, _ in waiting])


def _tell_all(replies: Sequence[Message]) -> None:
    try:
        with deadline(limits.BACKGROUND_SECONDS):
            services.disown_replies(replies=replies)
    except (DatabaseError, InterfaceError) as error:
        note(logger, error, "Replies that nobody writes could not be marked yet")
    except Exception:
        logger.exception("The teller of disowned replies stumbled")
    else:
        _forget_old(time.monotonic() - limits.ABANDONED_SECONDS)
    finally:
        connections.close_all()


def _forget_old(before: float) -> None:
    """Not at once: a server that was frozen may still have such a COMMIT to do. Later its age tells the same."""
    with _lock:
        for reply, since in list(_unbegun.values()):
            if since < before:
                del _unbegun[reply.pk]


def forget_all() -> None:
    with _lock:
        _unbegun.clear()


def _forget_in_child() -> None:
    """The parent tells what is the parent's."""
    global _lock, _teller
    _lock, _teller = threading.Lock(), None
    _unbegun.clear()


os.register_at_fork(after_in_child=_forget_in_child)
