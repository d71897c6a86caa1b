"""The chat under real gunicorn, with threads and with the ASGI worker, against a PostgreSQL that goes away."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.chat.events import STREAM, events
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("worker_class", ["gthread", "asgi"])]

# Only ours has a pool by default, and with it a size.
SMALL_POOL = "?pool_max_size=2" if os.environ.get("DATABASE_ENGINE", "dbresilience") == "dbresilience" else ""


class Browser:
    """One user of a site, with a token."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.headers = {"Content-Type": "application/json"}
        token = self.send("POST", "/api/auth/token", {"username": "demo", "password": "demo"})["token"]
        self.headers["Authorization"] = f"Token {token}"

    def open(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.site.url + path, data=data, method=method, headers={**self.headers, **headers}
        )
        return urllib.request.urlopen(request, timeout=30)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        with self.open(method, path, body, **headers) as answer:
            return json.load(answer)

    def ask(self, message: str, **headers: str) -> Stream:
        return Stream(self.open("POST", "/api/chat", {"message": message}, Accept=STREAM, **headers))

    def reply_in(self, thread_id: str) -> dict[str, Any]:
        return self.send("GET", f"/api/threads/{thread_id}/messages")["results"][-1]


class Stream:
    """An event stream that is being read."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.events = events(self._chunks())
        name, self.turn = next(self.events)
        assert name == "turn"

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return self.events

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self.answer.read1():
            yield chunk

    def until_first_delta(self) -> float:
        """Read up to the first piece of text; when it came."""
        assert next(self.events)[0] == "delta"
        return time.monotonic()

    def leave(self) -> None:
        """Close the socket, as a closed tab does."""
        with suppress(OSError):  # it may be gone already
            self.answer.fp.raw._sock.shutdown(socket.SHUT_RDWR)
        self.answer.close()


def test_the_first_delta_comes_while_the_assistant_works_and_leaving_stops_it(
    start_site: Callable[..., Site], worker_class: str
) -> None:
    browser = Browser(start_site(worker_class=worker_class, CHAT_AGENT_DELAY_SECONDS="2"))
    started = time.monotonic()
    stream = browser.ask("help")
    first = stream.until_first_delta() - started
    *_, (name, done) = stream
    whole = time.monotonic() - started
    assert name == "done"
    assert first < 1 < 2 <= whole
    assert done["reply"]["status"] == "complete"

    stream = browser.ask("help")
    stream.until_first_delta()
    stream.leave()
    thread = stream.turn["thread"]["id"]
    wait_until(lambda: browser.reply_in(thread)["status"] == "interrupted", what="the interruption")
    kept = browser.reply_in(thread)["content"]
    assert 0 < len(kept) < len(done["reply"]["content"])
    assert done["reply"]["content"].startswith(kept)


def test_leaving_is_noticed_while_the_assistant_is_silent(start_site: Callable[..., Site], worker_class: str) -> None:
    """Nothing is written but heartbeats, and the first of them into a closed socket succeeds."""
    browser = Browser(start_site(worker_class=worker_class, CHAT_AGENT_DELAY_SECONDS="3000"))
    stream = browser.ask("help")
    stream.leave()
    thread = stream.turn["thread"]["id"]
    wait_until(lambda: browser.reply_in(thread)["status"] == "interrupted", what="the interruption")


def test_stopping_the_server_keeps_what_was_said(
    start_site: Callable[..., Site], worker_class: str, database_url: str, postgres: ThrowawayPostgres
) -> None:
    site = start_site(worker_class=worker_class, CHAT_AGENT_DELAY_SECONDS="60", WEB_GRACE_SECONDS="3")
    stream = Browser(site).ask("help")
    stream.until_first_delta()
    assert site.stop(signal.SIGTERM) == 0
    stream.leave()
    database = database_url.rsplit("/", 1)[1].split("?")[0]
    rows = postgres.execute("SELECT status, content FROM chat_message WHERE role = 'assistant'", database=database)
    ((status, content),) = rows
    assert status == "interrupted"
    assert str(content).startswith("I am")


def test_a_reply_outlives_the_databases_absence(
    start_site: Callable[..., Site], worker_class: str, postgres: ThrowawayPostgres
) -> None:
    """Stopped after the first word, started again after the last: nothing is lost, nothing is doubled."""
    browser = Browser(start_site(worker_class=worker_class, CHAT_AGENT_DELAY_SECONDS="1"))
    key = "01a1fdeb-0a41-762c-8e76-4f1ec1ce6c14"
    stream = browser.ask("help", **{"Idempotency-Key": key})
    stream.until_first_delta()
    postgres.stop()
    back = threading.Timer(2.5, postgres.start)
    back.start()
    *_, (name, done) = stream
    back.join()
    assert name == "done"
    assert done["reply"]["status"] == "complete"
    again = browser.send("POST", "/api/chat", {"message": "help"}, **{"Idempotency-Key": key})
    assert again == done
    assert browser.reply_in(done["thread"]["id"])["content"] == done["reply"]["content"]


@pytest.mark.timed
def test_open_streams_hold_no_connection(
    start_site: Callable[..., Site], worker_class: str, database_url: str, postgres: ThrowawayPostgres
) -> None:
    """Twenty replies are being written; two connections are enough for them and for everybody else."""
    site = start_site(url=database_url + SMALL_POOL, worker_class=worker_class, CHAT_AGENT_DELAY_SECONDS="60")
    browser = Browser(site)
    streams = [browser.ask("help") for _ in range(20)]
    for stream in streams:
        stream.until_first_delta()
    database = database_url.rsplit("/", 1)[1].split("?")[0]
    wait_until(lambda: postgres.backends(database) <= 2, what="the release of the connections")
    started = time.monotonic()
    assert len(browser.send("GET", "/api/threads")["results"]) == 20
    assert time.monotonic() - started < 1
    for stream in streams:
        stream.leave()
