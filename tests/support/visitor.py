"""Who visits the site: one person or program, and crowds of them that ask or write all the time."""

from __future__ import annotations

import json
import math
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.support.site import Site

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str
    seconds: float
    at: float
    """`time.monotonic()` when it was there."""


class Visitor:
    """Somebody with a session or a token."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.headers: dict[str, str] = {}

    def ask(self, path: str, *, body: object = None, **headers: str) -> Answer:
        request = urllib.request.Request(
            self.site.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers=self.headers
            | {name.replace("_", "-"): value for name, value in headers.items()}
            | ({"Content-Type": "application/json"} if body is not None else {}),
        )
        opener = urllib.request.build_opener(_NoRedirect)
        started = time.monotonic()
        try:
            with opener.open(request, timeout=20) as response:
                status, sent, text = response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            status, sent, text = error.code, error.headers, error.read().decode()
        now = time.monotonic()
        return Answer(status, {k.lower(): v for k, v in sent.items()}, text, now - started, now)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def visitor_with_session(site: Site) -> Visitor:
    visitor = Visitor(site)
    form = visitor.ask("/accounts/login/")
    token = form.headers["set-cookie"].split("csrftoken=")[1].split(";")[0]
    visitor.headers["Cookie"] = f"csrftoken={token}"
    request = urllib.request.Request(
        site.url + "/accounts/login/",
        data=f"username=demo&password=demo&csrfmiddlewaretoken={token}".encode(),
        headers=visitor.headers | {"Referer": site.url},
    )
    try:
        urllib.request.build_opener(_NoRedirect).open(request, timeout=20)
    except urllib.error.HTTPError as redirect:
        cookies = redirect.headers.get_all("Set-Cookie") or []
        visitor.headers["Cookie"] = "; ".join(cookie.split(";")[0] for cookie in cookies)
    return visitor


def visitor_with_token(site: Site) -> Visitor:
    visitor = Visitor(site)
    answer = visitor.ask("/api/auth/token", body={"username": "demo", "password": "demo"})
    visitor.headers["Authorization"] = f"Token {json.loads(answer.body)['token']}"
    return visitor


class Crowd:
    """`with Crowd(visitor, people=4) as crowd:` so many ask for `path` again and again, with a short pause between."""

    def __init__(self, visitor: Visitor, *, people: int = 4, path: str = "/api/threads", pause: float = 0.04) -> None:
        self.answers: list[Answer] = []
        self.failures: list[BaseException] = []
        self._visitor = visitor
        self._path = path
        self._pause_seconds = pause
        self._leaves = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(people)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._leaves.set()
        for thread in self._threads:
            thread.join(25)
        if error is None:
            assert not any(thread.is_alive() for thread in self._threads), "somebody waits for ever"
            assert not self.failures, self.failures

    def _run(self) -> None:
        try:
            while not self._leaves.is_set():
                self.act()
                self._leaves.wait(self._pause_seconds)
        except BaseException as failure:
            self.failures.append(failure)

    def act(self) -> None:
        self.answers.append(self._visitor.ask(self._path))

    def told(self, *, since: float = 0.0, until: float = float("inf")) -> list[Answer]:
        """The answers to what was asked in that period."""
        return [answer for answer in list(self.answers) if since <= answer.at - answer.seconds < until]

    def statuses(self, *, since: float = 0.0, until: float = float("inf")) -> Counter[int]:
        return Counter(answer.status for answer in self.told(since=since, until=until))

    def first(self, status: int, *, since: float) -> float:
        """Seconds from `since` until somebody had that status; waits for it."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            if times := [answer.at for answer in list(self.answers) if answer.at >= since and answer.status == status]:
                return min(times) - since
            time.sleep(0.01)
        raise AssertionError(f"nobody had a {status} within 10 s: {self.statuses(since=since)}")


class Writers(Crowd):
    """Each writes into a thread of their own, and sends a message with the same key until it is acknowledged."""

    def __init__(self, visitor: Visitor, *, people: int = 3, pause: float = 0.04) -> None:
        super().__init__(visitor, people=people, pause=pause)
        self._mine = threading.local()
        self._lock = threading.Lock()
        self.acknowledged: dict[str, list[str]] = {}

    def act(self) -> None:
        mine = self._mine.__dict__
        if "key" not in mine:
            mine["number"] = mine.get("number", 0) + 1
            mine["key"] = str(uuid.uuid4())
        text = f"{threading.get_ident()} says {mine['number']}"
        body = {"message": text} | ({"thread": mine["thread"]} if "thread" in mine else {})
        answer = self._visitor.ask("/api/chat", body=body, Idempotency_Key=mine["key"])
        self.answers.append(answer)
        if answer.status == 200:
            mine["thread"] = json.loads(answer.body)["thread"]["id"]
            del mine["key"]
            with self._lock:
                self.acknowledged.setdefault(mine["thread"], []).append(text)

    def check_that_all_is_stored_once(self) -> None:
        """Every acknowledged message is there once, in its order, and followed by one complete reply."""
        assert self.acknowledged
        for thread, texts in self.acknowledged.items():
            stored = list(self._stored(thread))
            assert [each["content"] for each in stored if each["role"] == "user"][: len(texts)] == texts
            users = [each for each in stored if each["role"] == "user"]
            # The one that was under way when the crowd left may be there too.
            assert len(texts) <= len(users) <= len(texts) + 1
            assert len(stored) <= 2 * len(users)
            assert {each["status"] for each in stored[: 2 * len(texts)]} == {"complete"}

    def _stored(self, thread: str) -> Iterator[dict[str, str]]:
        path: str | None = f"/api/threads/{thread}/messages?page_size=200"
        while path:
            page = json.loads(self._visitor.ask(path).body)
            yield from page["results"]
            path = page["next"] and page["next"].removeprefix(self._visitor.site.url)


def percentile_seconds(answers: Sequence[Answer], share: float = 0.99) -> float:
    """The time within which this share of them came."""
    assert answers
    return sorted(answer.seconds for answer in answers)[math.ceil(len(answers) * share) - 1]
