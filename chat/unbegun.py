"""Replies that may be stored and that nobody writes: the COMMIT of their question was lost with the database.

This process knows that it never began them; that is told to whoever asks again here at once, and to the database as
soon as it can be reached, so that other processes need not wait until they look abandoned. Only a hint: what is
forgotten is taken for abandoned later, by its age.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from uuid import UUID

from django.db import DatabaseError, InterfaceError

from chat import limits, services
from chat.keeping import Keeping
from chat.models import Message
from chat.outages import note
from dbresilience import deadline

logger = logging.getLogger(__name__)

Unbegun = tuple[Message, float]
"""The reply, and since when it is known."""


def disown(reply: Message) -> None:
    """Remember that nobody writes `reply`, of which nobody knows whether it is stored."""
    _forget(_kept.keep(reply.pk, (reply, time.monotonic()), most=limits.UNBEGUN_REPLIES))


def count() -> int:
    return len(_kept.all())


def tell(reply_id: UUID) -> None:
    """Let the database know of this reply now, if this process disowned it."""
    found = _kept.get(reply_id)
    if found is not None:
        services.disown_replies(replies=[found[0]])


def _tell_all(waiting: Sequence[Unbegun]) -> None:
    try:
        with deadline(limits.BACKGROUND_SECONDS):
            services.disown_replies(replies=[reply for reply, _ in waiting])
    except (DatabaseError, InterfaceError) as error:
        note(logger, error, "Replies that nobody writes could not be marked yet")
    else:
        # Not at once: a server that was frozen may still have such a COMMIT to do. Later its age tells the same.
        before = time.monotonic() - limits.ABANDONED_SECONDS
        _forget([each for each in _kept.all() if each[1] < before])


def _forget(unbegun: Sequence[Unbegun]) -> None:
    for each in unbegun:
        _kept.drop(each[0].pk, each)


_kept: Keeping[Unbegun] = Keeping("chat-unbegun", _tell_all, lambda: limits.UNBEGUN_TELL_SECONDS)
