"""The database goes away in the midst of a turn: what has been said is stored when it is back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, ProgrammingError
from rest_framework.test import APIClient

from chat import limits, schedule, services, tasks, turns
from chat.agents import ToolCallRequested
from chat.management.commands import chat_worker
from chat.models import Message, ToolCall
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


class Outage:
    """While it lasts, no reply can be saved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = threading.Event()
        self.noticed = threading.Event()
        self.failures = 0
        save_reply = services.save_reply

        def save(**arguments: Any) -> bool:
            if not self.over.is_set():
                self.failures += 1
                self.noticed.set()
                raise OperationalError("the connection is closed")
            return save_reply(**arguments)

        monkeypatch.setattr(services, "save_reply", save)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


def test_the_last_save_waits_for_the_database(api: APIClient, agent: Any, outage: Outage) -> None:
    agent.will(ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
    agent.will("It is 42.")
    told = events(api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM).streaming_content)
    assert [next(told)[0] for _ in range(4)] == ["turn", "tool_call", "tool_result", "delta"]
    assert outage.noticed.wait(5)
    outage.over.set()
    ((name, done),) = told
    assert name == "done"
    assert Message.objects.get(role="assistant").content == done["reply"]["content"] == "It is 42."
    assert ToolCall.objects.get().status == "complete"


def test_an_outage_that_lasts_is_told_with_retry_after(
    api: APIClient, agent: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FINAL_SAVE_SECONDS", 0.2)
    *_, (name, data) = events(api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM).streaming_content)
    assert name == "error"
    assert data["status"] == 503
    assert data["retry_after"] > 0


def test_in_one_piece_it_is_a_503_with_retry_after(
    api: APIClient, agent: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FINAL_SAVE_SECONDS", 0.2)
    answer = api.post("/api/chat", {"message": "?"})
    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/problem+json"
    assert int(answer["Retry-After"]) == answer.json()["retry_after"] > 0


def test_an_error_before_the_first_byte_is_a_503(api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It travels up to whoever answers all database errors of the site; it must not become a 400 or a 500 here."""

    def start_turn(**_: Any) -> None:
        raise OperationalError("the connection is closed")

    monkeypatch.setattr(services, "start_turn", start_turn)
    for accept in ("application/json", STREAM):
        answer = api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=accept)
        assert answer.status_code == 503
        assert answer["Content-Type"] == "application/problem+json"
        assert int(answer["Retry-After"]) > 0
    assert agent.calls == 0


def test_a_reply_taken_for_abandoned_during_an_outage_is_taken_back(api: APIClient, agent: Any, outage: Outage) -> None:
    """Its process lives and could only not save: the answer it has is worth more than the mark."""
    told = events(api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM).streaming_content)
    next(told)
    assert outage.noticed.wait(5)
    Message.objects.filter(role="assistant").update(status="interrupted")
    outage.over.set()
    *_, (name, _) = told
    assert name == "done"
    assert Message.objects.get(role="assistant").status == "complete"


class Stop(Exception):
    """Ends the loop of a thread that has none."""


def keep_schedule(patch: pytest.MonkeyPatch, api: APIClient, agent: Any, fail: Callable[..., None]) -> None:
    def no_second_round(_: float) -> None:
        raise Stop

    patch.setattr(schedule, "enqueue_due", fail)
    patch.setattr(chat_worker.time, "sleep", no_second_round)
    with pytest.raises(Stop):
        chat_worker._keep_schedule()


def ask_for_a_title(patch: pytest.MonkeyPatch, api: APIClient, agent: Any, fail: Callable[..., None]) -> None:
    patch.setattr(type(tasks.title_thread), "enqueue", fail)
    assert api.post("/api/chat", {"message": "?"}).json()["reply"]["status"] == "complete"


def save_now_and_then(patch: pytest.MonkeyPatch, api: APIClient, agent: Any, fail: Callable[..., None]) -> None:
    patch.setattr(limits, "CHECKPOINT_SECONDS", 0.05)
    gate, tried = threading.Event(), threading.Event()
    patch.setattr(turns.Turn, "checkpoint", lambda _: tried.set() or fail())
    agent.will("Half an ", gate, "answer.")
    told = events(api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM).streaming_content)
    assert tried.wait(5)
    gate.set()
    assert list(told)[-1][0] == "done"


@pytest.mark.parametrize("work", [keep_schedule, ask_for_a_title, save_now_and_then])
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
