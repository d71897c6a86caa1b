"""Replies that broke off: asked for again in place, by one at a time; and those whose process died."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from django_tasks_db.models import DBTaskResult
from rest_framework.test import APIClient

from chat import limits, services
from chat.agents import AgentError, ToolCallRequested
from chat.models import Message, Thread, ToolCall
from tests.chat.commits import interrupt_commit
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def broken(api: APIClient, agent: Any) -> dict[str, Any]:
    agent.will("Half. ", ToolCallRequested("c1", "current_time", {}))
    agent.will(AgentError("It broke."))
    return api.post("/api/chat", {"message": "Hello"}).json()


def retry(api: APIClient, told: dict[str, Any], **extra: Any) -> Any:
    return api.post(f"/api/messages/{told['reply']['id']}/retry", **extra)


def test_a_failed_reply_runs_again_in_place(api: APIClient, agent: Any) -> None:
    told = broken(api, agent)
    agent.will("Whole.")
    again = retry(api, told)
    assert again.status_code == 200
    assert again.json() == {
        "thread": told["thread"],
        "message": told["message"],
        "reply": {"id": told["reply"]["id"], "content": "Whole.", "status": "complete", "tool_calls": []},
    }
    assert [said.content for said in agent.heard[-1]] == ["Hello"]
    assert not ToolCall.objects.exists()
    assert Message.objects.get(role="assistant").error is None


@pytest.mark.parametrize("named", [False, True])
def test_the_title_is_asked_for_again_unless_there_is_one(api: APIClient, agent: Any, named: bool) -> None:
    """What broke the reply may have kept the worker from finding a title, too."""
    told = broken(api, agent)
    assert DBTaskResult.objects.count() == 1
    if named:
        Thread.objects.update(title="Mine")
    assert retry(api, told).status_code == 200
    assert DBTaskResult.objects.count() == (1 if named else 2)


def test_it_can_be_streamed(api: APIClient, agent: Any) -> None:
    told = broken(api, agent)
    agent.will("Whole.")
    names = [name for name, _ in events(retry(api, told, HTTP_ACCEPT=STREAM).streaming_content)]
    assert names == ["turn", "delta", "done"]


def test_a_complete_reply_is_a_409(api: APIClient, agent: Any) -> None:
    told = api.post("/api/chat", {"message": "Hello"}).json()
    answer = retry(api, told)
    assert answer.status_code == 409
    assert answer["Content-Type"] == "application/problem+json"


def test_a_reply_that_is_being_written_is_a_409(api: APIClient, agent: Any) -> None:
    gate = threading.Event()
    agent.will("First ", gate)
    told = events(api.post("/api/chat", {"message": "Hello"}, HTTP_ACCEPT=STREAM).streaming_content)
    _, turn = next(told)
    assert retry(api, turn).status_code == 409
    gate.set()
    assert list(told)[-1][1]["reply"]["status"] == "complete"


def test_of_two_who_ask_again_together_one_runs(
    alice: Any, api: APIClient, api_of: Callable[[Any], APIClient], agent: Any
) -> None:
    told = broken(api, agent)
    gate = threading.Event()
    agent.will(gate, "Whole.")

    def one(_: int) -> int:
        try:
            return int(retry(api_of(alice), told).status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(one, number) for number in range(4)]
        wait_until(lambda: sum(answer.done() for answer in answers) == 3)
        gate.set()
        assert sorted(answer.result() for answer in answers) == [200, 409, 409, 409]


def test_nobody_elses_and_nothing_else(api: APIClient, bob: Any, api_of: Any, agent: Any) -> None:
    told = broken(api, agent)
    assert retry(api_of(bob), told).status_code == 404
    assert api.post(f"/api/messages/{uuid.uuid4()}/retry").status_code == 404
    assert api.post(f"/api/messages/{told['message']['id']}/retry").status_code == 404


def abandon(reply_id: str) -> None:
    long_ago = timezone.now() - timedelta(seconds=limits.ABANDONED_SECONDS + 1)
    Message.objects.filter(pk=reply_id).update(status="streaming", error=None, updated_at=long_ago)


def test_a_reply_whose_process_died_reads_as_interrupted_and_runs_again(api: APIClient, agent: Any) -> None:
    told = broken(api, agent)
    abandon(told["reply"]["id"])
    listed = api.get(f"/api/threads/{told['thread']['id']}/messages").json()["results"]
    assert listed[-1]["status"] == "interrupted"
    assert Message.objects.get(role="assistant").status == "interrupted"
    assert retry(api, told).status_code == 200


def test_a_reply_whose_process_died_runs_again_before_anybody_has_read_it(api: APIClient, agent: Any) -> None:
    told = broken(api, agent)
    abandon(told["reply"]["id"])
    assert retry(api, told).json()["reply"]["status"] == "complete"


def test_a_living_reply_is_saved_now_and_then(api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_SECONDS", 0.05)
    gate = threading.Event()
    agent.will("Half an ", gate, "answer.")
    told = events(api.post("/api/chat", {"message": "Hello"}, HTTP_ACCEPT=STREAM).streaming_content)
    next(told)
    reply = Message.objects.filter(role="assistant")
    wait_until(lambda: reply.get().content == "Half an ", what="a checkpoint")
    before = reply.get().updated_at
    wait_until(lambda: reply.get().updated_at > before, what="another checkpoint")
    assert reply.get().status == "streaming"
    gate.set()
    assert list(told)[-1][1]["reply"]["content"] == "Half an answer." == reply.get().content


def test_a_late_checkpoint_does_not_revive_a_finished_reply(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHECKPOINT_SECONDS", 0.001)
    for _ in range(20):
        assert api.post("/api/chat", {"message": "Hello"}).json()["reply"]["status"] == "complete"
    time.sleep(0.05)
    assert not Message.objects.filter(status="streaming").exists()


def test_only_the_newest_attempt_may_write(api: APIClient, agent: Any) -> None:
    """A process that everybody thought dead comes back after the reply was started again."""
    told = broken(api, agent)
    old = Message.objects.get(pk=told["reply"]["id"])
    agent.will("Whole.")
    assert retry(api, told).status_code == 200
    assert not services.save_reply(reply=old, content="Stale.", status="complete")
    assert Message.objects.get(pk=old.pk).content == "Whole."


@pytest.mark.usefixtures("nobody_looks")
def test_a_retry_whose_commit_was_lost_can_be_made_again_at_once(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would look as if it were being written for half a minute."""
    told = broken(api, agent)
    interrupt_commit(monkeypatch, stored=True)
    assert retry(api, told).status_code == 503
    assert Message.objects.get(role="assistant").status == "streaming"
    again = retry(api, told)
    assert (again.status_code, again.json()["reply"]["status"]) == (200, "complete")
    assert Message.objects.get(role="assistant").attempt == 3
