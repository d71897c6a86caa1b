"""A turn: what the assistant is told, what is stored, what the client gets in one piece."""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Any

import pytest
from django.db.backends.utils import CursorWrapper
from django_tasks_db.models import DBTaskResult
from rest_framework.test import APIClient

from chat import limits, services, tasks, turns, watch
from chat.agents import AgentError, ToolCallRequested
from chat.models import Message, Thread, ToolCall
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def ask(api: APIClient, message: str, **body: Any) -> dict[str, Any]:
    answer = api.post("/api/chat", {"message": message, **body})
    assert answer.status_code == 200, answer.content
    return answer.json()


def test_a_question_begins_a_thread_and_is_answered(api: APIClient, agent: Any) -> None:
    agent.will("Hello ", "Alice!")
    told = ask(api, "Hi there")
    assert set(told) == {"thread", "message", "reply"}
    assert told["thread"]["title"] == "Hi there"
    assert told["message"] == {"id": told["message"]["id"], "role": "user", "content": "Hi there"}
    assert told["reply"] == {
        "id": told["reply"]["id"],
        "content": "Hello Alice!",
        "status": "complete",
        "tool_calls": [],
    }
    listed = api.get(f"/api/threads/{told['thread']['id']}/messages").json()["results"]
    assert [(m["role"], m["content"], m["status"]) for m in listed] == [
        ("user", "Hi there", "complete"),
        ("assistant", "Hello Alice!", "complete"),
    ]


def test_the_assistant_hears_what_was_said_before(api: APIClient, agent: Any) -> None:
    agent.will("One.")
    told = ask(api, "First")
    agent.will("Two.")
    ask(api, "Second", thread=told["thread"]["id"])
    assert [(said.role, said.content) for said in agent.heard[1]] == [
        ("user", "First"),
        ("assistant", "One."),
        ("user", "Second"),
    ]


def test_the_thread_last_spoken_in_comes_first(api: APIClient, agent: Any) -> None:
    older = ask(api, "Older")
    ask(api, "Newer")
    ask(api, "Again", thread=older["thread"]["id"])
    assert [thread["title"] for thread in api.get("/api/threads").json()["results"]] == ["Older", "Newer"]


def test_tools_are_run_stored_and_told_to_the_assistant(api: APIClient, agent: Any) -> None:
    agent.will("Let me see. ", ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
    agent.will("It is 42.")
    told = ask(api, "What is six times seven?")
    (call,) = told["reply"]["tool_calls"]
    assert call["name"] == "calculate"
    assert call["arguments"] == {"expression": "6*7"}
    assert call["result"] == {"expression": "6*7", "value": "42"}
    assert call["status"] == "complete"
    assert call["duration_seconds"] >= 0
    assert told["reply"]["content"] == "Let me see. It is 42."
    stored = ToolCall.objects.get()
    assert (str(stored.pk), stored.status, stored.result) == (call["id"], "complete", call["result"])
    heard = agent.heard[1]
    assert heard[-2].tool_calls[0].id == heard[-1].tool_call_id == "c1"
    assert '"42"' in heard[-1].content


def test_a_tool_that_fails_does_not_end_the_turn(api: APIClient, agent: Any) -> None:
    agent.will(
        ToolCallRequested("c1", "calculate", {"expression": "1/0"}), ToolCallRequested("c2", "launch_rocket", {})
    )
    agent.will("Sorry.")
    told = ask(api, "Divide!")
    assert [call["status"] for call in told["reply"]["tool_calls"]] == ["failed", "failed"]
    assert "divides by zero" in told["reply"]["tool_calls"][0]["result"]["error"]
    assert "no tool named 'launch_rocket'" in told["reply"]["tool_calls"][1]["result"]["error"]
    assert told["reply"]["status"] == "complete"


def test_an_assistant_that_only_wants_tools_is_stopped(api: APIClient, agent: Any) -> None:
    for _ in range(20):
        agent.will(ToolCallRequested("c", "current_time", {}))
    told = ask(api, "Loop!")
    assert agent.calls == limits.TOOL_ROUNDS + 1
    assert told["reply"]["status"] == "failed"
    assert told["reply"]["error"] == "The assistant gave no answer."


def test_a_failure_keeps_what_was_said_and_says_why(api: APIClient, agent: Any) -> None:
    agent.will("Half an ", AgentError("The model's server is busy."))
    told = ask(api, "Tell me")
    assert told["reply"]["content"] == "Half an "
    assert told["reply"]["status"] == "failed"
    assert told["reply"]["error"] == "The model's server is busy."
    stored = Message.objects.get(role="assistant")
    assert (stored.content, stored.status, stored.error) == ("Half an ", "failed", "The model's server is busy.")


def test_an_unexpected_failure_tells_no_secrets(api: APIClient, agent: Any) -> None:
    agent.will(RuntimeError("password=hunter2"))
    told = ask(api, "Tell me")
    assert told["reply"]["status"] == "failed"
    assert "hunter2" not in str(told)


def test_characters_that_postgresql_cannot_store_are_replaced(api: APIClient, agent: Any) -> None:
    agent.will(ToolCallRequested("c1", "calculate", {"expression": "1+1\x00", "x": [float("inf"), "\ud800"]}))
    agent.will("nul \x00, half \ud83d.")
    told = ask(api, "Odd")
    assert told["reply"]["status"] == "complete"
    assert told["reply"]["content"] == "nul \ufffd, half \ufffd."
    assert Message.objects.get(role="assistant").content == told["reply"]["content"]
    assert ToolCall.objects.get().arguments == {"expression": "1+1\ufffd", "x": [None, "\ufffd"]}


def test_an_endless_reply_is_stopped(api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "REPLY_CHARACTERS", 100)
    agent.will(*["word "] * 1000)
    told = ask(api, "Talk")
    assert told["reply"]["status"] == "failed"
    assert 100 < len(told["reply"]["content"]) < 120


def test_a_turn_takes_few_statements(api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The request: session, user, thread, messages, the request for a title. The turn: one UPDATE."""
    statements: dict[str, list[str]] = defaultdict(list)
    execute = CursorWrapper.execute

    def counted(cursor: Any, sql: Any, params: Any = None) -> Any:
        statements[threading.current_thread().name.split("-")[0]].append(str(sql))
        return execute(cursor, sql, params)

    monkeypatch.setattr(CursorWrapper, "execute", counted)
    ask(api, "Hi")
    wait_until(lambda: not watch.living())
    assert [sql.split()[0] for sql in statements["MainThread"]] == ["SELECT", "SELECT", "INSERT", "INSERT", "INSERT"]
    (update,) = statements["turn"]
    assert update.startswith('UPDATE "chat_message"')


def test_an_assistant_that_cannot_be_had_is_a_failed_reply(api: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_agent() -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(turns, "get_agent", no_agent)
    assert ask(api, "Hi")["reply"]["status"] == "failed"


def test_a_tool_call_is_stored_when_it_is_asked_for_and_its_result_with_what_is_saved_next(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves: list[list[str]] = []
    save_reply = services.save_reply

    def noted(**arguments: Any) -> bool:
        saves.append([str(call.status) for call in arguments["tool_calls"]])
        return save_reply(**arguments)

    monkeypatch.setattr(services, "save_reply", noted)
    agent.will(ToolCallRequested("c1", "current_time", {}), ToolCallRequested("c2", "current_time", {}))
    ask(api, "Hi")
    assert saves == [["running"], ["complete", "running"], ["complete"]]
    assert list(ToolCall.objects.values_list("status", flat=True)) == ["complete", "complete"]


def test_the_worker_names_a_new_thread(api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "get_agent", lambda: agent)
    told = ask(api, "Hi there")
    assert tasks.title_thread.call(told["thread"]["id"]) == "About Hi there"
    assert Thread.objects.get().title == "About Hi there"


def test_a_title_is_asked_for_with_the_thread_or_not_at_all(api: APIClient, agent: Any) -> None:
    """One transaction: neither a thread that nobody names nor a task without a thread."""
    key = "0193c0de-0000-4000-8000-000000000003"
    for _ in range(2):
        told = api.post("/api/chat", {"message": "Hi"}, HTTP_IDEMPOTENCY_KEY=key).json()
    ask(api, "And?", thread=told["thread"]["id"])
    (task,) = DBTaskResult.objects.all()
    assert task.args_kwargs["args"] == [told["thread"]["id"]]


def test_a_name_given_by_hand_stays(api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "get_agent", lambda: agent)
    told = ask(api, "Hi there")
    api.patch(f"/api/threads/{told['thread']['id']}", {"title": "Mine"})
    assert tasks.title_thread.call(told["thread"]["id"]) is None
    assert Thread.objects.get().title == "Mine"
