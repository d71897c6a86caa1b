"""The assistant without a model: understands plain requests, always answers the same, can be stopped."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from chat.agents import Said, TextDelta, ToolCallRequested
from chat.agents.offline import OfflineAgent, understand
from chat.arithmetic import ArithmeticProblem, calculate
from chat.tools import DESCRIPTIONS, TOOLS
from dbresilience import get_database_resources


@pytest.mark.parametrize(
    ("text", "tool", "arguments"),
    [
        ("search for invoices", "search_my_messages", {"query": "invoices"}),
        ("Please find my messages about Lisbon.", "search_my_messages", {"query": "Lisbon"}),
        ("What did I say about the pool?", "search_my_messages", {"query": "the pool"}),
        ("2*(3+4)", "calculate", {"expression": "2*(3+4)"}),
        ("What is 17 / 3?", "calculate", {"expression": "17 / 3"}),
        ("calculate sqrt(2) * 100", "calculate", {"expression": "sqrt(2) * 100"}),
        ("what time is it", "current_time", {}),
        ("What time is it in Asia/Tokyo?", "current_time", {"timezone": "Asia/Tokyo"}),
        ("Is the database ok?", "database_status", {}),
        ("How is postgres doing", "database_status", {}),
    ],
)
def test_plain_requests_use_tools(text: str, tool: str, arguments: dict[str, Any]) -> None:
    assert understand(text) == (tool, arguments)


@pytest.mark.timed
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("help", "offline assistant"),
        ("What can you do?", "Search your messages"),
        ("Hello", "Hello!"),
        ("show me some Markdown", "```python"),
        ("Why is the sky blue?", "> Why is the sky blue?"),
        ("5", "> 5"),
        ("x" * 8000, "…"),
        ("1" * 8000, "…"),
        ("." * 7999 + '"', "…"),
    ],
)
def test_everything_else_is_answered_at_once(text: str, words: str) -> None:
    started = time.perf_counter()
    answer = understand(text)
    assert time.perf_counter() - started < 0.2
    assert isinstance(answer, str)
    assert words in answer


def test_every_tool_is_described_and_every_description_has_a_tool() -> None:
    assert {tool.name for tool in DESCRIPTIONS} == set(TOOLS)


@pytest.mark.timed
def test_the_time_to_think_is_spread_over_the_words() -> None:
    agent = OfflineAgent(delay_seconds=0.4)
    started = time.monotonic()
    stream = agent.stream(messages=[Said(role="user", content="help")], tools=(), cancelled=threading.Event())
    next(stream)
    assert time.monotonic() - started < 0.2
    list(stream)
    assert time.monotonic() - started >= 0.4


def test_it_stops_when_it_is_told_to() -> None:
    cancelled = threading.Event()
    stream = OfflineAgent(delay_seconds=30).stream(
        messages=[Said(role="user", content="help")], tools=(), cancelled=cancelled
    )
    threading.Timer(0.1, cancelled.set).start()
    assert list(itertools.islice(stream, 1)) == []


def test_the_same_question_gets_the_same_words() -> None:
    def words() -> list[Any]:
        said = [Said(role="user", content="help")]
        return list(OfflineAgent().stream(messages=said, tools=(), cancelled=threading.Event()))

    first = words()
    assert first == words()
    assert all(isinstance(item, TextDelta) for item in first)
    assert len(first) > 20


def test_it_says_so_when_a_tool_is_not_offered() -> None:
    said = [Said(role="user", content="1+1")]
    items = list(OfflineAgent().stream(messages=said, tools=(), cancelled=threading.Event()))
    assert not any(isinstance(item, ToolCallRequested) for item in items)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2*(3+4)", "14"),
        ("0.1+0.2", "0.3"),
        ("2^10", "1024"),
        ("7 // 2 + 7 % 2", "4"),
        ("-3 × 4 ÷ 2", "-6"),
        ("sqrt(16) + max(1, 2)", "6"),
        ("2**200", str(2**200)),
        ("cos(pi)", "-1"),
    ],
)
def test_sums(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.timed
@pytest.mark.parametrize(
    "expression",
    [
        "1/0",
        "9**9**9",
        "(9**999)**(9**9)",
        "sqrt(-1)",
        "(-8)**0.5",
        "1e308*10",
        "__import__('os').system('true')",
        "().__class__",
        "max()",
        "round(1e400)",
        "'a'*9",
        "True+1",
        "lambda: 1",
        "1+",
        "(" * 150,
        "1+" * 200,
        "max(9**999, " * 10 + "1" + ")" * 10 + "**9999",
    ],
)
def test_what_is_no_sum_is_refused_at_once(expression: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ArithmeticProblem):
        calculate(expression)
    assert time.perf_counter() - started < 0.2


@pytest.mark.django_db(transaction=True)
class TestOverTheAPI:
    def ask(self, api: APIClient, message: str) -> dict[str, Any]:
        return api.post("/api/chat", {"message": message}).json()["reply"]

    def test_it_finds_what_was_said_and_not_the_question(self, api: APIClient, bob: Any, api_of: Any) -> None:
        self.ask(api, "The invoices of March are in the blue folder")
        self.ask(api_of(bob), "Invoices of Bob")
        reply = self.ask(api, "search for invoice")
        assert reply["tool_calls"][0]["status"] == "complete"
        found = reply["tool_calls"][0]["result"]["messages"]
        assert all("March" in hit["snippet"] for hit in found)
        assert any(hit["role"] == "user" for hit in found)
        assert "«invoices»" in reply["content"]
        assert "blue folder" in reply["content"]

    def test_it_says_when_there_is_nothing(self, api: APIClient) -> None:
        assert "found nothing about **unicorns**" in self.ask(api, "search for unicorns")["content"]

    def test_it_calculates(self, api: APIClient) -> None:
        assert self.ask(api, "2*(3+4)")["content"] == "`2*(3+4)` = **14**"

    def test_what_goes_wrong_is_told_in_words(self, api: APIClient) -> None:
        assert self.ask(api, "1/0")["content"] == "That did not work: it divides by zero."

    def test_it_tells_the_time(self, api: APIClient) -> None:
        assert "(Asia/Tokyo)" in self.ask(api, "What time is it in Asia/Tokyo?")["content"]

    @pytest.mark.parametrize("zone", ["Nowhere", "America", "Asia/Nowhere"])
    def test_it_says_that_a_time_zone_is_unknown(self, api: APIClient, zone: str) -> None:
        assert "is unknown" in self.ask(api, f"What time is it in {zone}?")["content"]

    def test_it_looks_after_the_database(self, api: APIClient) -> None:
        reply = self.ask(api, "Is the database ok?")
        assert reply["tool_calls"][0]["result"]["healthy"] is True
        assert "The database answers in" in reply["content"]
        if connection.settings_dict["ENGINE"] == "dbresilience":
            assert f"| At most | {get_database_resources().configuration.max_size} |" in reply["content"]
            assert "| Requests that wait | 0 |" in reply["content"]


@pytest.mark.parametrize(
    ("message", "title"),
    [
        ("What is 6*7?", "What is 6*7"),
        ("What is 2*3*4?", "What is 2*3*4"),
        ("What is (1+2)*(3)*(4)?", "What is (1+2)*(3)*(4)"),
        ("Is 3 > 2 and 5 > 4?", "Is 3 > 2 and 5 > 4"),
        ("C# and F# with snake_case_names", "C# and F# with snake_case_names"),
        ("Please explain **this *very* strong** word", "Explain this very strong word"),
        ("## Plan\n- `pip` *first*", "Plan pip first"),
        ("> quoted", "Quoted"),
        ("What does `**kwargs` do, and `*args*`?", "What does **kwargs do, and *args*"),
        ("***", "***"),
    ],
)
def test_a_title_loses_only_markdown_that_is_markup(message: str, title: str) -> None:
    assert OfflineAgent().title(message=message) == title
