"""What a turn costs on the network: the whole of it, from the request's first byte to the reply that is stored."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.openai_server import OpenAIServer, Text, Tool
from tests.support.postgres import wait_until
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.visitor import Visitor, visitor_with_session, visitor_with_token

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("DATABASE_ENGINE", "dbresilience") != "dbresilience", reason="other backends do not pipeline"
    ),
]

VISITORS = {"token": visitor_with_token, "session": visitor_with_session}
QUIET_SECONDS = 0.3


@dataclass
class Cost:
    """What was sent to the server on behalf of a turn."""

    round_trips: int
    statements: list[str]

    def __str__(self) -> str:
        return "\n".join([f"{self.round_trips} round trips, {len(self.statements)} statements:", *self.statements])


class Meter:
    """A site and somebody who asks it; the database is beyond a proxy that counts."""

    def __init__(self, proxy: Proxy, site: Site, visitor: Visitor, model: OpenAIServer) -> None:
        self.proxy, self.site, self.visitor, self.model = proxy, site, visitor, model
        if cookies := visitor.headers.get("Cookie"):
            visitor.headers["X-CSRFToken"] = cookies.split("csrftoken=")[1].split(";")[0]

    def ask(self, message: str, **body: Any) -> dict[str, Any]:
        answer = self.visitor.ask("/api/chat", body={"message": message, **body})
        assert answer.status == 200, answer.body
        told: dict[str, Any] = json.loads(answer.body)
        assert told["reply"]["status"] == "complete"
        return told

    def cost(self, work: Callable[[], object]) -> Cost:
        """Also of what is done after the answer."""
        self._wait_for_quiet()
        trips, sent, opened = self.proxy.round_trips, len(self.proxy.statements), len(self.proxy.opened_at)
        work()
        self._wait_for_quiet()
        assert len(self.proxy.opened_at) == opened
        return Cost(self.proxy.round_trips - trips, self.proxy.statements[sent:])

    def _wait_for_quiet(self) -> None:
        seen, since = -1, 0.0

        def quiet() -> bool:
            nonlocal seen, since
            if self.proxy.round_trips != seen:
                seen, since = self.proxy.round_trips, time.monotonic()
            return time.monotonic() - since > QUIET_SECONDS

        wait_until(quiet, what="the end of all that is sent")


@pytest.fixture
def model() -> Iterator[OpenAIServer]:
    with OpenAIServer() as model:
        yield model


@pytest.fixture(params=["gthread", "asgi"])
def worker_class(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def meter_for(
    database_url: str, proxy: Proxy, start_site: Callable[..., Site], model: OpenAIServer, worker_class: str
) -> Callable[[str], Meter]:
    def start(kind: str) -> Meter:
        site = start_site(
            url=proxy.url(database_url),
            worker_class=worker_class,
            CHAT_AGENT="openai",
            OPENAI_BASE_URL=model.url,
            OPENAI_API_KEY="none",
        )
        meter = Meter(proxy, site, VISITORS[kind](site), model)
        meter.ask("The first turn of a process imports a lot")
        return meter

    return start


@pytest.mark.parametrize(("kind", "trips", "statements"), [("token", 3, 9), ("session", 4, 10)])
def test_a_turn_takes_three_round_trips(
    meter_for: Callable[[str], Meter], kind: str, trips: int, statements: int
) -> None:
    """A read, a write, and the reply. With a cookie its session comes first: it says whose the read is."""
    meter = meter_for(kind)
    thread = meter.ask("A thread with a history")["thread"]["id"]
    for body in ({"thread": thread}, {}):
        cost = meter.cost(lambda body=body: meter.ask("And on it goes", **body))
        assert cost.round_trips <= trips, cost
        assert len(cost.statements) <= statements, cost


def test_a_tool_call_takes_one_more(meter_for: Callable[[str], Meter]) -> None:
    """Whether the model asks for one after the other or for all in one breath."""
    meter = meter_for("token")
    thread = meter.ask("A thread with a history")["thread"]["id"]
    for calls, at_once in [(1, True), (3, True), (3, False)]:

        def ask(calls: int = calls, at_once: bool = at_once) -> None:
            tools = [Tool("calculate", json.dumps({"expression": f"6*{n}"}), id=f"call_{n}") for n in range(calls)]
            for script in [tools] if at_once else [[tool] for tool in tools]:
                meter.model.answers(*script)
            meter.model.answers(Text("There you are."))
            told = meter.ask("Calculate!", thread=thread)
            assert [call["status"] for call in told["reply"]["tool_calls"]] == ["complete"] * calls

        cost = meter.cost(ask)
        assert cost.round_trips <= 3 + calls, cost


def test_a_search_is_itself_the_one_more(meter_for: Callable[[str], Meter]) -> None:
    """A tool that asks the database is stored with what comes next."""
    meter = meter_for("token")
    thread = meter.ask("A thread with a history")["thread"]["id"]

    def ask() -> None:
        meter.model.answers(Tool("search_my_messages", json.dumps({"query": "history"})))
        meter.model.answers(Text("There you are."))
        (call,) = meter.ask("Search!", thread=thread)["reply"]["tool_calls"]
        assert call["result"]["messages"]

    cost = meter.cost(ask)
    assert cost.round_trips <= 4, cost
