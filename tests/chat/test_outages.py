"""The database goes away in the midst of a turn: what has been said is stored when it is back."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone
from django_tasks_db.models import DBTaskResult
from rest_framework.test import APIClient

from chat import limits, queries, services, tasks, unsaved
from chat.agents import ToolCallRequested
from chat.models import Message, Thread, ToolCall
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


KEY = "0193c0de-0000-4000-8000-000000000002"


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


def assert_tells_what_is_stored(error: dict[str, Any]) -> None:
    """Whoever sends it again as a new request would ask twice."""
    reply = Message.objects.get(role="assistant")
    assert error["outcome_unknown"] is True
    assert error["thread"] == {"id": str(reply.thread_id)}
    assert error["message"] == {"id": str(reply.in_reply_to_id)}
    assert error["reply"] == {"id": str(reply.pk)}
    assert "same Idempotency-Key" in error["detail"]
    assert f"POST /api/messages/{reply.pk}/retry" in error["detail"]


def test_an_outage_that_lasts_is_told_with_retry_after(
    api: APIClient, agent: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FINAL_SAVE_SECONDS", 0.2)
    *_, (name, data) = events(api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM).streaming_content)
    assert name == "error"
    assert data["status"] == 503
    assert data["retry_after"] > 0
    assert_tells_what_is_stored(data)


def test_in_one_piece_it_is_a_503_with_retry_after(
    api: APIClient, agent: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FINAL_SAVE_SECONDS", 0.2)
    answer = api.post("/api/chat", {"message": "?"})
    assert answer.status_code == 503
    assert answer["Content-Type"] == "application/problem+json"
    assert int(answer["Retry-After"]) == answer.json()["retry_after"] > 0
    assert_tells_what_is_stored(answer.json())


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


LONG_OUTAGE = {"FINAL_SAVE_SECONDS": 0.1, "UNSAVED_RETRY_SECONDS": 0.05, "TAKE_OVER_SECONDS": 0}


@pytest.fixture
def told_of_long_outage(api: APIClient, agent: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a reader was told at last, who had read a whole answer with a tool call when the database was away."""
    for name, value in LONG_OUTAGE.items():
        monkeypatch.setattr(limits, name, value)
    agent.will(ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
    agent.will("It is 42.")
    *_, (name, error) = events(
        api.post("/api/chat", {"message": "?"}, HTTP_ACCEPT=STREAM, HTTP_IDEMPOTENCY_KEY=KEY).streaming_content
    )
    assert name == "error"
    Message.objects.update(updated_at=timezone.now() - timedelta(seconds=61))
    return error


def assert_stored() -> None:
    reply = Message.objects.get(role="assistant")
    assert (reply.status, reply.content, reply.attempt) == ("complete", "It is 42.", 1)
    assert ToolCall.objects.get().status == "complete"


@pytest.mark.parametrize("marked", [False, True])
def test_what_was_read_is_stored_when_the_database_is_back_however_late(
    agent: Any, outage: Outage, told_of_long_outage: dict[str, Any], marked: bool
) -> None:
    if marked:
        services.settle_abandoned()
    outage.over.set()
    wait_until(lambda: not unsaved.count(), what="the reply to be stored")
    assert_stored()
    wait_until(lambda: DBTaskResult.objects.filter(task_path=tasks.title_thread.module_path).exists())


@pytest.mark.parametrize("how", ["the same again", "a retry"])
def test_asking_again_gets_what_was_kept_and_asks_no_assistant(
    api: APIClient,
    agent: Any,
    outage: Outage,
    told_of_long_outage: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    """Also when it comes before the one who keeps it has looked."""
    monkeypatch.setattr(unsaved, "_store_all", lambda _: None)
    asked = agent.calls
    outage.over.set()
    if how == "a retry":
        answer = api.post(f"/api/messages/{told_of_long_outage['reply']['id']}/retry")
    else:
        answer = api.post("/api/chat", {"message": "?"}, HTTP_IDEMPOTENCY_KEY=KEY)
    assert answer.status_code == 200, answer.content
    assert answer.json()["reply"]["content"] == "It is 42."
    assert agent.calls == asked
    assert_stored()
    assert Thread.objects.count() == 1


def test_the_same_again_waits_for_a_process_that_cannot_save_just_now(
    api: APIClient, agent: Any, outage: Outage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks abandoned, but it is here and living."""
    monkeypatch.setattr(limits, "TAKE_OVER_SECONDS", 0)
    ask = {"HTTP_ACCEPT": STREAM, "HTTP_IDEMPOTENCY_KEY": KEY}
    first = events(api.post("/api/chat", {"message": "?"}, **ask).streaming_content)
    next(first)
    assert outage.noticed.wait(5)
    Message.objects.update(updated_at=timezone.now() - timedelta(seconds=31))
    again = events(api.post("/api/chat", {"message": "?"}, **ask).streaming_content)
    next(again)
    threading.Timer(0.3, outage.over.set).start()
    assert list(again)[-1] == list(first)[-1]
    assert agent.calls == 1


@pytest.mark.parametrize(("limit", "value"), [("UNSAVED_REPLIES", 0), ("UNSAVED_SECONDS", 0)])
def test_what_is_kept_is_bounded_and_a_loss_is_logged(
    outage: Outage,
    api: APIClient,
    agent: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    limit: str,
    value: float,
) -> None:
    for name, short in {**LONG_OUTAGE, limit: value}.items():
        monkeypatch.setattr(limits, name, short)
    error = api.post("/api/chat", {"message": "?"}).json()
    wait_until(lambda: not unsaved.count(), what="the end of patience")
    assert f"The end of reply {error['reply']['id']} is lost" in caplog.text


def test_a_kept_reply_gives_way_to_a_newer_attempt(
    agent: Any, outage: Outage, told_of_long_outage: dict[str, Any]
) -> None:
    reply = services.restart_reply(reply=Message.objects.get(role="assistant"))
    outage.over.set()
    wait_until(lambda: not unsaved.count())
    reply.refresh_from_db()
    assert (reply.status, reply.content) == ("streaming", "")


@pytest.mark.parametrize("request_name", ["ask", "ask again"])
def test_nothing_fails_between_the_question_and_its_reply(
    api: APIClient, agent: Any, alice: Any, monkeypatch: pytest.MonkeyPatch, request_name: str
) -> None:
    """Else the client would be told to send again what is stored."""
    turn = services.start_turn(author=alice, message="Why?")
    Message.objects.filter(pk=turn.reply.pk).update(status="interrupted")

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("the connection is closed")

    for name in ("place_in", "history_before"):
        monkeypatch.setattr(queries, name, away)
    if request_name == "ask":
        answer = api.post("/api/chat", {"message": "And?", "thread": str(turn.thread.pk)})
    else:
        answer = api.post(f"/api/messages/{turn.reply.pk}/retry")
    assert answer.status_code == 503
    assert Message.objects.count() == 2
    assert Message.objects.get(pk=turn.reply.pk).status == "interrupted"
