"""A turn: the thread that runs a conversation, tells its reader, and saves what came of it.

It has its own thread, so that it neither depends on how its request is served (WSGI or ASGI) nor dies without a word
when the reader goes away. It holds no database connection while the model thinks. What it saves last decides: `done`
is only said after that.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import Any

from django.db import DatabaseError, InterfaceError, close_old_connections, connections

from chat import answers, services, tools, unsaved, watch
from chat.agents import Said, get_agent
from chat.channel import Channel
from chat.conversation import Cancellation, Conversation
from chat.models import Message, ToolCall
from chat.outages import note
from chat.patience import Patience, longest_seconds
from chat.queries import History
from chat.services import StartedTurn
from chat.tools import ToolContext
from dbresilience import classify, deadline

logger = logging.getLogger(__name__)

HOW_TO_GO_ON = (
    "Do not ask anew: your message is stored. Send the request again with the same Idempotency-Key if it had one; "
    "if not, POST /api/messages/{reply}/retry."
)


class Turn:
    """One attempt at a reply."""

    def __init__(
        self,
        started: StartedTurn,
        *,
        history: History,
        channel: Channel | None = None,
        cancellation: Cancellation | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.thread, self.message, self.reply = started.thread, started.message, started.reply
        self.channel = channel or Channel()
        self.cancellation = cancellation or Cancellation()
        self.ended = threading.Event()
        self._patience = patience or Patience()
        self._saving = threading.Lock()
        self._new_calls: dict[int, ToolCall] = {}
        self._began = time.monotonic()
        self._conversation = Conversation(
            # Called by the turn's own thread: an agent that cannot be made is a failed reply and not a lost one.
            choose_agent=get_agent,
            said=[
                Said(role=role, content=content)
                for role, content in [*history, (self.message.role, self.message.content)]
            ],
            context=ToolContext(owner_id=self.thread.owner_id, before=self.message.pk),
            reply=self.reply,
            cancellation=self.cancellation,
            on_text=lambda text: self.channel.put("delta", {"text": text}),
            on_tool_call=self._tell_tool_call,
        )

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self._began

    def start(self) -> None:
        self.channel.put("turn", answers.turn_started(thread=self.thread, message=self.message, reply=self.reply))
        watch.enter(self)
        # A daemon, so that a model that never answers cannot keep the process from ending; see `watch`.
        threading.Thread(target=self.run, name=f"turn-{self.reply.pk}", daemon=True).start()

    def run(self) -> None:
        watch.enter(self)
        try:
            # Its tools read the database, too.
            with deadline(longest_seconds()):
                status, error = self._conversation.run()
            self._finish(status, error)
        except Exception:
            logger.exception("A turn ended unexpectedly")
            self._tell_error(
                500, "Internal Server Error", f"The reply could not be finished. {HOW_TO_GO_ON}", lost=True
            )
        finally:
            self.channel.end()
            self.ended.set()
            watch.leave(self)
            connections.close_all()

    def checkpoint(self) -> None:
        """Save how far it has come, unless that is being done or it has ended."""
        if not self._saving.acquire(blocking=False):
            return
        try:
            if not self.ended.is_set() and self.reply.status == Message.Status.STREAMING:
                self._save(Message.Status.STREAMING)
        finally:
            self._saving.release()

    def _save(self, status: str, error: str | None = None) -> bool:
        """Caller holds `_saving`. False if the reply is no longer this turn's: then the assistant is stopped too."""
        with self._patience.spend():
            saved = services.save_reply(
                reply=self.reply,
                content=self._conversation.content,
                status=status,
                error=error,
                tool_calls=list(self._new_calls.values()),
            )
        self._new_calls.clear()
        if not saved:
            self.cancellation.cancel()
        return saved

    def _finish(self, status: Message.Status, error: str | None) -> None:
        """Save the end and tell it; an outage is waited for, as long as the client does."""
        with self._saving:
            # A checkpoint that hung until now has used up its part.
            until = time.monotonic() + self._patience.left_seconds
            while True:
                try:
                    saved = self._save(status, error)
                    break
                except (DatabaseError, InterfaceError) as failure:
                    connections.close_all()
                    verdict = classify(failure)
                    if verdict.status is None:
                        raise
                    pause = min(max(verdict.retry_after_seconds or 0.5, 0.1), 1.0)
                    if time.monotonic() + pause > until:
                        # No checkpoint may follow.
                        self.reply.status, self.reply.error = status, error
                        self._keep()
                        self._tell_outage(verdict.retry_after_seconds)
                        return
                    time.sleep(pause)
            self.reply.status, self.reply.error = status, error
        self.reply.content = self._conversation.content
        if saved:
            self.channel.put("done", self._answer())
        else:
            self._tell_error(409, "Conflict", "The reply was deleted or started again while it was being written.")

    def _keep(self) -> None:
        unsaved.keep(
            unsaved.Unsaved(
                reply=self.reply,
                content=self._conversation.content,
                status=self.reply.status,
                error=self.reply.error,
                tool_calls=list(self._new_calls.values()),
                since=time.monotonic(),
            )
        )

    def _answer(self) -> dict[str, Any]:
        return answers.answer(
            thread=self.thread,
            message=self.message,
            reply=self.reply,
            tool_calls=self._conversation.tool_calls,
        )

    def _tell_tool_call(self, call: ToolCall) -> None:
        if call.status == ToolCall.Status.RUNNING:
            self.channel.put("tool_call", answers.tool_requested(call))
        else:
            self.channel.put("tool_result", answers.tool_returned(call))
        # A result is stored with what is saved next, and a call before whatever may take its time.
        waits = call.status != ToolCall.Status.RUNNING or tools.asks_database(call.name)
        try:
            with self._saving:
                self._new_calls[call.position] = call
                if not waits:
                    self._save(Message.Status.STREAMING)
        except (DatabaseError, InterfaceError) as error:
            # The next save stores it; a tool call must not fail because of that.
            note(logger, error, "A tool call will be stored only with its reply")
            connections.close_all()
        finally:
            close_old_connections()

    def _tell_outage(self, retry_after_seconds: float | None) -> None:
        self._tell_error(
            503,
            "Service Unavailable",
            f"The database is unavailable, so the reply is not stored yet. {HOW_TO_GO_ON}",
            retry_after=math.ceil(retry_after_seconds or 5),
            lost=True,
        )

    def _tell_error(
        self, status: int, title: str, detail: str, *, retry_after: int | None = None, lost: bool = False
    ) -> None:
        """With the ids of what is stored if the end is `lost`: whoever asks the same as a new question asks twice."""
        more: dict[str, Any] = {}
        if lost:
            places = answers.places(thread=self.thread, message=self.message, reply=self.reply)
            detail, more = detail.format(reply=self.reply.pk), {"outcome_unknown": True, **places}
        self.channel.put(
            "error", answers.error(status=status, title=title, detail=detail, retry_after=retry_after, **more)
        )
