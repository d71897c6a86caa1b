"""One question of one person: asked, and asked again with the same key until it is acknowledged."""

from __future__ import annotations

import http.client
import json
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.support.site import Site

NOTHING = 0
"""In the place of a status: no answer came, or it broke off."""
MAY_COME_AGAIN = {429, 503}
ATTEMPT_SECONDS = 75.0
"""Longer than the site itself may take: 60 seconds for the last save."""


@dataclass(frozen=True)
class Answer:
    """What one attempt got. An event `error` counts as the status it carries."""

    status: int
    body: dict[str, Any]
    seconds: float
    retry_after_seconds: float | None = None

    @property
    def is_acknowledgement(self) -> bool:
        return self.status == 200


@dataclass
class Question:
    """Made from the seed alone: the same number asks the same in every run."""

    number: int
    key: uuid.UUID
    text: str
    streamed: bool
    wants_new_thread: bool
    gives_up: bool
    """Goes away after the first refusal; what was left behind is looked at in the end."""
    thread: str | None = None
    answers: list[Answer] = field(default_factory=list)

    @classmethod
    def of(cls, seed: int, number: int) -> Question:
        dice = random.Random(f"{seed}-{number}")
        text = dice.choice(["turn {} of seed {}", "{}00000000+{}", "search for turn {} of seed {}"])
        return cls(
            number=number,
            key=uuid.UUID(int=dice.getrandbits(128), version=4),
            text=text.format(number, seed),
            streamed=dice.random() < 0.5,
            wants_new_thread=dice.random() < 0.3,
            gives_up=dice.random() < 0.1,
        )

    @property
    def acknowledgement(self) -> Answer | None:
        return next((answer for answer in self.answers if answer.is_acknowledgement), None)

    def ask(self, site: Site, token: str) -> Answer:
        """One attempt; the answer is also kept."""
        headers = {
            "Authorization": f"Token {token}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if self.streamed else "application/json",
            "Idempotency-Key": str(self.key),
        }
        body = {"message": self.text} | ({"thread": self.thread} if self.thread else {})
        began = time.monotonic()
        # A new connection each time: one that was kept may break for reasons of its own.
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=ATTEMPT_SECONDS)
        try:
            connection.request("POST", "/api/chat", json.dumps(body), headers)
            status, told = _read(connection.getresponse())
        except (OSError, http.client.HTTPException) as error:
            status, told = NOTHING, {"detail": f"{type(error).__name__}: {error}"}
        finally:
            connection.close()
        answer = Answer(status, told, time.monotonic() - began, told.get("retry_after"))
        self.answers.append(answer)
        return answer


def _read(response: http.client.HTTPResponse) -> tuple[int, dict[str, Any]]:
    if not response.headers["Content-Type"].startswith("text/event-stream"):
        text = response.read().decode()
        try:
            return response.status, json.loads(text)
        except ValueError:
            return response.status, {"detail": text[:500]}
    event = ""
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name == "event":
            event = value
        elif name == "data" and event in ("done", "error"):
            told = json.loads(value)
            return (200 if event == "done" else told["status"]), told
    return NOTHING, {"detail": "The stream ended with neither `done` nor `error`"}
