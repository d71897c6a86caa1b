"""The agent for OpenAI's protocol, against a server that speaks it and fails as real ones do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rest_framework.test import APIClient

from chat.agents import Agent, AgentError, Said, TextDelta, ToolCallRequested, get_agent
from chat.agents import openai as openai_agent
from chat.agents.openai import OpenAIAgent
from chat.models import Message
from chat.tools import DESCRIPTIONS
from tests.chat.events import STREAM, events
from tests.support.openai_server import Break, OpenAIServer, Pause, Raw, Refusal, Text, Tool
from tests.support.postgres import wait_until

QUESTION = [Said(role="user", content="Hello?")]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture
def model(server: OpenAIServer) -> OpenAIAgent:
    return OpenAIAgent(model="small", base_url=server.url, api_key="key", silence_seconds=5)


def listen(agent: Agent, *, messages: Any = QUESTION, cancelled: threading.Event | None = None) -> list[Any]:
    return list(agent.stream(messages=messages, tools=DESCRIPTIONS, cancelled=cancelled or threading.Event()))


def text_until_error(agent: Agent) -> tuple[str, str]:
    said: list[str] = []
    stream = agent.stream(messages=QUESTION, tools=(), cancelled=threading.Event())
    with pytest.raises(AgentError) as caught:
        said.extend(item.text for item in stream if isinstance(item, TextDelta))
    return "".join(said), str(caught.value)


def test_text_comes_piece_by_piece(server: OpenAIServer, model: OpenAIAgent) -> None:
    server.answers(Text("Hel"), Text("lo!"))
    assert listen(model) == [TextDelta("Hel"), TextDelta("lo!")]
    (asked,) = server.requests
    assert asked["authorization"] == "Bearer key"
    assert asked["model"] == "small"
    assert asked["stream"] is True
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    assert {tool["function"]["name"] for tool in asked["tools"]} == {tool.name for tool in DESCRIPTIONS}


@pytest.mark.timed
def test_the_first_piece_is_had_before_the_last_is_sent(server: OpenAIServer, model: OpenAIAgent) -> None:
    server.answers(Text("First "), Pause(1), Text("last."))
    started = time.monotonic()
    stream = model.stream(messages=QUESTION, tools=(), cancelled=threading.Event())
    assert next(stream) == TextDelta("First ")
    assert time.monotonic() - started < 0.9
    assert [item.text for item in stream] == ["last."]


def test_tool_calls_are_put_together_from_their_pieces(server: OpenAIServer, model: OpenAIAgent) -> None:
    server.answers(
        Text("Wait. "), Tool("calculate", '{"expression": "6*7"}', id="a"), Tool("current_time", "{}", id="b")
    )
    assert listen(model) == [
        TextDelta("Wait. "),
        ToolCallRequested("a", "calculate", {"expression": "6*7"}),
        ToolCallRequested("b", "current_time", {}),
    ]


@pytest.mark.parametrize("arguments", ["{broken", "[1, 2]", ""])
def test_arguments_that_are_not_an_object_are_left_to_the_tool(
    server: OpenAIServer, model: OpenAIAgent, arguments: str
) -> None:
    server.answers(Tool("calculate", arguments, id="a"))
    assert listen(model) == [ToolCallRequested("a", "calculate", {})]


def test_results_of_tools_are_told_in_the_protocols_words(server: OpenAIServer, model: OpenAIAgent) -> None:
    call = ToolCallRequested("a", "calculate", {"expression": "6*7"})
    said = [
        *QUESTION,
        Said(role="assistant", content="", tool_calls=(call,)),
        Said(role="tool", content='{"value": "42"}', tool_call_id="a"),
    ]
    listen(model, messages=said)
    _, _, assistant, tool = server.requests[0]["messages"]
    assert assistant["content"] is None
    assert assistant["tool_calls"][0]["function"] == {"name": "calculate", "arguments": '{"expression": "6*7"}'}
    assert tool == {"role": "tool", "content": '{"value": "42"}', "tool_call_id": "a"}


@pytest.mark.parametrize(
    ("script", "said", "explanation"),
    [
        ([Text("Half "), Break()], "Half ", "broke off"),
        ([Text("Half "), Raw("{rubbish")], "Half ", "not its protocol"),
        ([Text("Half "), Raw('{"error": {"message": "secret"}}')], "Half ", "reported an error"),
        ([Text("Half "), Raw("[DONE]")], "Half ", "broke off"),
        (
            [Raw('{"choices": [{"index": 0, "delta": {"content": "Long"}, "finish_reason": "length"}]}')],
            "Long",
            "longest",
        ),
        ([Raw('{"choices": [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]}')], "", "withheld"),
        ([Refusal(429, {"Retry-After": "7"})], "", "busy (429). Try again in 7 seconds"),
        ([Refusal(429)], "", "Try again in a moment"),
        ([Refusal(401)], "", "OPENAI_API_KEY"),
        ([Refusal(404)], "", "CHAT_MODEL"),
        ([Refusal(400)], "", "refuses"),
        ([Refusal(500)], "", "failed (500)"),
    ],
)
def test_every_failure_keeps_what_was_said_and_is_explained(
    server: OpenAIServer, model: OpenAIAgent, script: list[Any], said: str, explanation: str
) -> None:
    server.answers(*script)
    text, error = text_until_error(model)
    assert text == said
    assert explanation in error
    assert "secret" not in error
    # Nothing is asked twice behind the user's back.
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_explained() -> None:
    _, error = text_until_error(OpenAIAgent(model="small", base_url="http://127.0.0.1:9/v1", api_key="key"))
    assert "cannot be reached" in error


def test_a_model_that_falls_silent_is_given_up(server: OpenAIServer) -> None:
    model = OpenAIAgent(model="small", base_url=server.url, api_key="key", silence_seconds=0.3)
    server.answers(Text("Half "), Pause(5))
    assert text_until_error(model) == ("Half ", "The model was silent for 0.3 seconds. Try again.")


def test_a_slow_model_is_waited_for(server: OpenAIServer) -> None:
    """Silence is measured from word to word, not over the whole answer."""
    model = OpenAIAgent(model="small", base_url=server.url, api_key="key", silence_seconds=0.5)
    server.answers(*[part for word in "abcd" for part in (Text(word), Pause(0.2))])
    assert "".join(item.text for item in listen(model)) == "abcd"


@pytest.mark.timed
@pytest.mark.parametrize("script", [(Pause(30),), (Text("Half "), Pause(30))])
def test_cancelling_ends_the_request_also_while_the_model_thinks(
    server: OpenAIServer, model: OpenAIAgent, script: tuple[Any, ...]
) -> None:
    server.answers(*script)
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    started = time.monotonic()
    listen(model, cancelled=cancelled)
    assert time.monotonic() - started < 2
    wait_until(lambda: server.hangups == 1, what="the end of the request")


def test_leaving_the_stream_ends_the_request(server: OpenAIServer, model: OpenAIAgent) -> None:
    server.answers(Text("Half "), Pause(30))
    stream = model.stream(messages=QUESTION, tools=(), cancelled=threading.Event())
    next(stream)
    stream.close()
    wait_until(lambda: server.hangups == 1, what="the end of the request")


def test_a_title_is_a_few_words(server: OpenAIServer, model: OpenAIAgent) -> None:
    server.answers(Text('"Planning '), Text('a trip."\n'))
    assert model.title(message="I want to go to Lisbon") == "Planning a trip"


def test_a_title_is_not_waited_for_long(
    server: OpenAIServer, model: OpenAIAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai_agent, "TITLE_SECONDS", 0.3)
    server.answers(Pause(10))
    with pytest.raises(AgentError):
        model.title(message="I want to go to Lisbon")


@pytest.mark.django_db(transaction=True)
class TestOverTheAPI:
    @pytest.fixture(autouse=True)
    def _settings(self, settings: Any, server: OpenAIServer) -> None:
        settings.CHAT_AGENT = "openai"
        settings.OPENAI_BASE_URL = server.url

    def test_a_whole_turn_with_a_tool(self, api: APIClient, server: OpenAIServer) -> None:
        assert isinstance(get_agent(), OpenAIAgent)
        server.answers(Tool("calculate", '{"expression": "6*7"}'))
        server.answers(Text("It is 42."))
        reply = api.post("/api/chat", {"message": "Six times seven?"}).json()["reply"]
        assert (reply["content"], reply["status"]) == ("It is 42.", "complete")
        assert reply["tool_calls"][0]["result"]["value"] == "42"
        assert '"42"' in server.requests[1]["messages"][-1]["content"]

    def test_a_broken_stream_is_a_failed_reply(self, api: APIClient, server: OpenAIServer) -> None:
        server.answers(Text("Half "), Break())
        reply = api.post("/api/chat", {"message": "Hello"}).json()["reply"]
        assert (reply["content"], reply["status"]) == ("Half ", "failed")
        assert "broke off" in reply["error"]

    def test_a_client_that_leaves_ends_the_request_to_the_model(self, api: APIClient, server: OpenAIServer) -> None:
        server.answers(Text("Half "), Pause(30))
        answer = api.post("/api/chat", {"message": "Hello"}, HTTP_ACCEPT=STREAM)
        told = events(answer.streaming_content)
        assert [next(told)[0], next(told)[0]] == ["turn", "delta"]
        answer.close()
        wait_until(lambda: server.hangups == 1, what="the end of the request")
        wait_until(lambda: Message.objects.get(role="assistant").status == "interrupted", what="the interruption")
        assert Message.objects.get(role="assistant").content == "Half "
