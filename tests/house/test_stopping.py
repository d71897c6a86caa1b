"""A web process that is told to stop: short replies end, long ones keep what they have."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable

import psycopg
import pytest

from tests.support.postgres import wait_until
from tests.support.site import Site

pytestmark = pytest.mark.slow


def post(url: str, body: dict[str, str], **headers: str) -> urllib.request.Request:
    everything = {"Content-Type": "application/json", "Accept": "text/event-stream"} | headers
    return urllib.request.Request(url, json.dumps(body).encode(), everything)


def ask(site: Site) -> list[str]:
    """Ask for a reply in the background; the lines of its stream, as they come."""
    login = post(f"{site.url}/api/auth/token", {"username": "demo", "password": "demo"}, Accept="application/json")
    with urllib.request.urlopen(login, timeout=10) as response:
        token = json.load(response)["token"]
    lines: list[str] = []

    def read() -> None:
        question = post(f"{site.url}/api/chat", {"message": "help"}, Authorization=f"Token {token}")
        try:
            with urllib.request.urlopen(question, timeout=60) as response:
                lines.extend(line.decode().strip() for line in response)
        except OSError:
            lines.append("broken off")

    threading.Thread(target=read, daemon=True).start()
    return lines


def statuses(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        return [row[0] for row in connection.execute("SELECT status FROM chat_message WHERE role = 'assistant'")]


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
@pytest.mark.parametrize(("thinks_seconds", "becomes"), [("2", "complete"), ("60", "interrupted")])
def test_a_reply_ends_or_is_saved(
    start_site: Callable[..., Site], database_url: str, worker_class: str, thinks_seconds: str, becomes: str
) -> None:
    """SIGTERM in mid-reply: nothing is left streaming, and the process ends within its grace time."""
    site = start_site(worker_class=worker_class, CHAT_AGENT_DELAY_SECONDS=thinks_seconds)
    ask(site)
    wait_until(lambda: statuses(database_url) == ["streaming"], what="the reply")
    assert site.stop() == 0
    assert statuses(database_url) == [becomes]
    assert "Traceback" not in site.log
