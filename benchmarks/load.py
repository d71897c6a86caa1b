"""Requests that come whether or not earlier ones have been answered, as people do; and what became of each."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass

NOTHING = "nothing"


@dataclass(frozen=True)
class Answer:
    """When it was asked (`time.monotonic()`), how long it took, and its status or `NOTHING`."""

    asked: float
    seconds: float
    kind: str

    @property
    def at(self) -> float:
        """When it came."""
        return self.asked + self.seconds


class Load:
    """For the block, asks `path` so many times a second; `answers` grows.

    Args:
        patience_seconds: how long an answer is waited for.
        at_once: with so many requests unanswered, no further one is made until one of them is.
    """

    def __init__(
        self, port: int, path: str, *, per_second: float, patience_seconds: float = 10.0, at_once: int = 1000
    ) -> None:
        self.answers: list[Answer] = []
        self.per_second = per_second
        self._port, self._path, self._patience_seconds = port, path, patience_seconds
        self._places = threading.Semaphore(at_once)
        self._stop = threading.Event()
        self._askers: list[threading.Thread] = []
        self._clock = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Load:
        self._clock.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Ends when the last request has its answer."""
        self.stop()
        self._clock.join()
        for asker in self._askers:
            asker.join()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()

    def first_after(self, moment: float, kind: str = "200") -> Answer | None:
        """The earliest answer of that kind that came after `moment`."""
        return min((a for a in self.answers if a.kind == kind and a.at > moment), key=lambda a: a.at, default=None)

    def asked_between(self, begins: float, ends: float) -> list[Answer]:
        return [answer for answer in self.answers if begins <= answer.asked < ends]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            due += 1 / self.per_second
            if self._places.acquire(blocking=False):
                asker = threading.Thread(target=self._ask, daemon=True)
                self._askers = [thread for thread in self._askers if thread.is_alive()]
                self._askers.append(asker)
                asker.start()

    def _ask(self) -> None:
        asked = time.monotonic()
        answer = ask(self._port, self._path, patience_seconds=self._patience_seconds)
        self.answers.append(Answer(asked, time.monotonic() - asked, answer))
        self._places.release()


def ask(port: int, path: str, *, patience_seconds: float) -> str:
    """Ask once, on a new connection; the status of the answer, or `NOTHING`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=patience_seconds)
    try:
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        response.read()
        return str(response.status)
    except (OSError, http.client.HTTPException):
        return NOTHING
    finally:
        connection.close()
