"""A client of the API, and an assistant that does what the test tells it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from rest_framework.test import APIClient

from chat import turns, unbegun, unsaved, watch
from chat.agents import TextDelta, ToolCallRequested


class ScriptedAgent:
    """Plays one script for each step: texts, tool calls, errors, and events it waits for."""

    def __init__(self) -> None:
        self.scripts: list[list[Any]] = []
        self.heard: list[list[Any]] = []
        self.calls = 0
        self.stopped = threading.Event()

    def will(self, *script: Any) -> None:
        self.scripts.append(list(script))

    def stream(self, *, messages: Any, tools: Any, cancelled: threading.Event) -> Iterator[Any]:
        self.calls += 1
        self.heard.append(list(messages))
        for item in self.scripts.pop(0) if self.scripts else ["Hello!"]:
            if isinstance(item, str):
                yield TextDelta(item)
            elif isinstance(item, ToolCallRequested):
                yield item
            elif isinstance(item, Exception):
                raise item
            else:
                while not item.wait(0.01):
                    if cancelled.is_set():
                        self.stopped.set()
                        return

    def title(self, *, message: str) -> str:
        return f"About {message}"


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> ScriptedAgent:
    scripted = ScriptedAgent()
    monkeypatch.setattr(turns, "get_agent", lambda: scripted)
    return scripted


def forget_unbegun() -> None:
    """Let this process know no more of replies that nobody writes than any other."""
    unbegun._forget(unbegun._kept.all())


@pytest.fixture(autouse=True)
def _nothing_left_running() -> Iterator[None]:
    """A turn that outlives its test would meet an emptied database."""
    cache.clear()
    yield
    watch.interrupt_all(wait_seconds=5)
    unsaved.give_up()
    forget_unbegun()
    deadline = time.monotonic() + 5
    while any(thread.name.startswith(("turn-", "follow-")) for thread in threading.enumerate()):
        assert time.monotonic() < deadline, "A turn did not end"
        time.sleep(0.01)


@pytest.fixture
def api_of() -> Callable[[Any], APIClient]:
    def client(user: Any) -> APIClient:
        api = APIClient()
        api.force_login(user)
        return api

    return client


@pytest.fixture
def api(alice: Any, api_of: Callable[[Any], APIClient]) -> APIClient:
    """Alice, logged in."""
    return api_of(alice)


@pytest.fixture
def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What became of a COMMIT that was not answered stays unknown, and nobody finds out by trying again."""
    if connection.settings_dict["ENGINE"] == "dbresilience":
        options = {"commit_lookup": False, "retry_attempts": 1}
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "resilience", options)
