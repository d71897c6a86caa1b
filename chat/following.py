"""The same request again: tells what became of the first one, waiting for it if need be, without asking a model.

Only if the process of the first one is gone before it answered does the reply start once more, in this process.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from datetime import timedelta

from django.db import DatabaseError, InterfaceError, close_old_connections, connections
from django.utils import timezone

from chat import answers, limits, queries, services, unbegun, unsaved, watch
from chat.channel import Channel
from chat.conversation import Cancellation
from chat.models import Message
from chat.outages import note
from chat.patience import Patience
from chat.services import NotRepeatableError, StartedTurn, ThreadGoneError
from chat.turns import Turn
from dbresilience import classify

logger = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0


class Follower:
    """Has the face of a `Turn`: a channel to read and a way to stop. Stopping it stops nobody else's work."""

    def __init__(self, earlier: StartedTurn, *, patience: Patience | None = None) -> None:
        self.thread, self.message, self.reply = earlier.thread, earlier.message, earlier.reply
        self.channel = Channel()
        self.cancellation = Cancellation()
        self._patience = patience or Patience()

    def start(self) -> None:
        self.channel.put("turn", answers.turn_started(thread=self.thread, message=self.message, reply=self.reply))
        threading.Thread(target=self.run, name=f"follow-{self.reply.pk}", daemon=True).start()

    def run(self) -> None:
        try:
            self._follow()
        except (DatabaseError, InterfaceError) as error:
            verdict = classify(error)
            note(logger, error, "A reply could not be looked up for a repeated request")
            self.channel.put(
                "error",
                answers.error(
                    status=503 if verdict.status else 500,
                    title="Service Unavailable" if verdict.status else "Internal Server Error",
                    detail="The reply could not be looked up. Send the same request again.",
                    retry_after=math.ceil(verdict.retry_after_seconds or 5),
                ),
            )
        finally:
            self.channel.end()
            connections.close_all()

    def _follow(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        began = time.monotonic()
        while not self.cancellation.is_set():
            # In this order: a turn hands over what it could not store before it leaves the living.
            is_living = watch.is_living(self.reply.pk)
            with self._patience.spend():
                unsaved.store(self.reply.pk)
                unbegun.tell(self.reply.pk)
                reply = queries.stored_reply(self.reply.pk)
            if reply is None:
                self.channel.put(
                    "error", answers.error(status=404, title="Not Found", detail="The thread has been deleted.")
                )
                return
            if reply.status != Message.Status.STREAMING:
                self._tell(reply)
                return
            watched = time.monotonic() - began >= limits.TAKE_OVER_SECONDS
            is_unwritten = services.is_never_begun(reply) or (watched and _looks_abandoned(reply))
            if is_unwritten and not is_living and self._take_over(reply):
                return
            close_old_connections()
            self.cancellation.wait(pause)
            pause = min(pause * 1.5, LONGEST_PAUSE_SECONDS)

    def _tell(self, reply: Message) -> None:
        calls = list(reply.tool_calls.all())
        for call in calls:
            self.channel.put("tool_call", answers.tool_requested(call))
            self.channel.put("tool_result", answers.tool_returned(call))
        if reply.content:
            self.channel.put("delta", {"text": reply.content})
        told = answers.answer(thread=self.thread, message=self.message, reply=reply, tool_calls=calls)
        self.channel.put("done", told)

    def _take_over(self, reply: Message) -> bool:
        try:
            with self._patience.spend():
                # Read first: when the reply is ours, nothing may fail any more before it begins.
                history = queries.history_before(self.message)
                reply = services.restart_reply(reply=reply, only_abandoned=True, in_doubt=unbegun.disown)
        except (NotRepeatableError, ThreadGoneError):
            return False
        again = StartedTurn(thread=self.thread, message=self.message, reply=reply)
        turn = Turn(
            again, history=history, channel=self.channel, cancellation=self.cancellation, patience=self._patience
        )
        turn.run()
        return True


def _looks_abandoned(reply: Message) -> bool:
    """By this machine's clock, to spare most polls a write; the database's clock decides."""
    return timezone.now() - reply.updated_at > timedelta(seconds=limits.ABANDONED_SECONDS)
