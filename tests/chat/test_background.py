"""Background work tells an outage in a line, and a mistake with its traceback."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, ProgrammingError
from rest_framework.test import APIClient

from chat import limits, schedule, turns
from chat.management.commands import chat_worker
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


class Stop(Exception):
    """Ends the loop of a thread that has none."""


def keep_schedule(patch: pytest.MonkeyPatch, api: APIClient, agent: Any, fail: Callable[..., None]) -> None:
    def no_second_round(_: float) -> None:
        raise Stop

    patch.setattr(schedule, "enqueue_due", fail)
    patch.setattr(chat_worker.time, "sleep", no_second_round)
    with pytest.raises(Stop):
        chat_worker._keep_schedule()


def save_now_and_then(patch: pytest.MonkeyPatch, api: APIClient, agent: Any, fail: Callable[..., None]) -> None:
    patch.setattr(limits, "CHECKPOINT_SECONDS", 0.05)
    gate, tried = threading.Event(), threading.Event()
    patch.setattr(turns.Turn, "checkpoint", lambda _: tried.set() or fail())
    agent.will("Half an ", gate, "answer.")
    told = events(api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM).streaming_content)
    assert tried.wait(5)
    gate.set()
    assert list(told)[-1][0] == "done"


@pytest.mark.parametrize("work", [keep_schedule, save_now_and_then])
@pytest.mark.parametrize("error", [OperationalError("the connection is closed"), ProgrammingError("no such column")])
def test_in_the_background_an_outage_is_a_line_and_a_mistake_has_its_traceback(
    api: APIClient,
    agent: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    work: Callable[..., None],
    error: DatabaseError,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    with caplog.at_level(logging.INFO, "chat"):
        work(monkeypatch, api, agent, fail)
        wait_until(lambda: any(record.name.startswith("chat.") for record in caplog.records))
    record = next(record for record in caplog.records if record.name.startswith("chat."))
    is_mistake = isinstance(error, ProgrammingError)
    assert record.levelno == (logging.ERROR if is_mistake else logging.INFO)
    assert bool(record.exc_info) is is_mistake
