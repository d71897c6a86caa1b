"""The watch over the turns of this process: saves them now and then, ends those nobody waits for, stops all at the end.

One thread for all turns and only while there are any, because a turn's own thread sleeps in its model's hands. What it
saves tells other processes that the turn is alive.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from chat import limits
from chat.outages import note

if TYPE_CHECKING:
    from chat.turns import Turn

logger = logging.getLogger(__name__)

_lock = threading.Lock()
_nobody_left = threading.Event()
_living: set[Turn] = set()
_watchman: threading.Thread | None = None


def enter(turn: Turn) -> None:
    global _watchman
    with _lock:
        _living.add(turn)
        _nobody_left.clear()
        if _watchman is None:
            _watchman = threading.Thread(target=_keep_watch, name="chat-watch", daemon=True)
            _watchman.start()


def leave(turn: Turn) -> None:
    with _lock:
        _living.discard(turn)
        if not _living:
            _nobody_left.set()


def living() -> list[Turn]:
    with _lock:
        return list(_living)


def is_living(reply_id: UUID) -> bool:
    """Whether this process writes that reply, be it that it cannot save it just now."""
    return any(turn.reply.pk == reply_id for turn in living())


def interrupt_all(*, wait_seconds: float = 5.0) -> int:
    """Stop every turn and wait until each has saved what it has; returns how many did not manage in time."""
    turns = living()
    for turn in turns:
        turn.cancellation.cancel()
    deadline = time.monotonic() + wait_seconds
    left = sum(not turn.ended.wait(max(0.0, deadline - time.monotonic())) for turn in turns)
    if left:
        logger.warning("%d replies could not be saved within %.1f s; they count as interrupted", left, wait_seconds)
    return left


def interrupt_thread(thread_id: UUID) -> None:
    """Stop the turns of a thread that is about to go."""
    for turn in living():
        if turn.thread.pk == thread_id:
            turn.cancellation.cancel()


def _keep_watch() -> None:
    global _watchman
    while True:
        _nobody_left.wait(limits.CHECKPOINT_SECONDS)
        with _lock:
            if not _living:
                _watchman = None
                break
            turns = list(_living)
        for turn in turns:
            try:
                _look_after(turn)
            except (DatabaseError, InterfaceError) as error:
                note(logger, error, "A reply that is being written could not be saved; trying again in a moment")
                connections.close_all()
            except Exception:
                logger.exception("The watch over turns stumbled")
        connections.close_all()


def _look_after(turn: Turn) -> None:
    if turn.channel.unread_seconds > limits.READER_PATIENCE_SECONDS:
        turn.cancellation.cancel()
    elif turn.age_seconds > limits.REPLY_SECONDS:
        turn.cancellation.cancel(
            failure=f"The reply took longer than {limits.REPLY_SECONDS:.0f} seconds and was stopped."
        )
    turn.checkpoint()


def _forget() -> None:
    """In a forked child: the parent's turns go on in the parent."""
    global _lock, _nobody_left, _watchman
    _lock, _nobody_left = threading.Lock(), threading.Event()
    _living.clear()
    _watchman = None


os.register_at_fork(after_in_child=_forget)
# The threads of turns are daemons, so that a model that never answers cannot keep a process from ending.
atexit.register(interrupt_all)
