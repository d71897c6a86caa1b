"""Who looks on while it happens: how many sessions the server has, whether the site answers, and when it is back."""

from __future__ import annotations

import threading
import time
import urllib.request
from abc import ABC, abstractmethod
from contextlib import suppress

import psycopg

from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

EVERY_SECONDS = 0.1
LONGEST_ANSWER_SECONDS = 30.0


class Observer(ABC):
    """Looks again and again in threads of its own, for the block."""

    def __init__(self, *, eyes: int = 1) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=type(self).__name__, daemon=True) for _ in range(eyes)]

    def __enter__(self) -> Observer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.look()

    @abstractmethod
    def look(self) -> None:
        """Look once."""


class Sessions(Observer):
    """Sessions of one database, as the server counts them.

    Those of a server that was frozen are there until it has noticed that their clients have gone, so what counts is for
    how long there were too many, not that there were.
    """

    def __init__(self, server: ThrowawayPostgres, database: str, *, bound: int) -> None:
        super().__init__()
        self.most = 0
        self.samples = 0
        self.longest_above_bound_seconds = 0.0
        self.bound = bound
        self._server, self._database = server, database
        self._above_since: float | None = None

    def look(self) -> None:
        # It is stopped again and again: then nothing is to be counted.
        with suppress(psycopg.Error):
            # Named by the database, not by what connects: sessions of our own go to another one.
            self.count(self._server.backends(self._database))

    def count(self, sessions: int) -> None:
        now = time.monotonic()
        self.samples += 1
        self.most = max(self.most, sessions)
        if sessions <= self.bound:
            self._above_since = None
        elif self._above_since is None:
            self._above_since = now
        else:
            self.longest_above_bound_seconds = max(self.longest_above_bound_seconds, now - self._above_since)


class Livez(Observer):
    """How long `/livez` takes, which needs no database."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.longest_seconds = 0.0
        self._url = site.url + "/livez"

    def look(self) -> None:
        began = time.monotonic()
        with suppress(OSError), urllib.request.urlopen(self._url, timeout=30):
            pass
        self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)


class Returns(Observer):
    """Whether the site answers what needs the database, to whoever asks a few times a second."""

    def __init__(self, site: Site, token: str) -> None:
        # One may wait for its answer when all is well again.
        super().__init__(eyes=2)
        self._request = urllib.request.Request(
            site.url + "/api/threads?page_size=1", headers={"Authorization": f"Token {token}"}
        )
        self._answered = threading.Condition()
        self._answered_at = 0.0

    def look(self) -> None:
        # A refusal is an OSError, too.
        with suppress(OSError), urllib.request.urlopen(self._request, timeout=LONGEST_ANSWER_SECONDS):
            with self._answered:
                self._answered_at = time.monotonic()
                self._answered.notify_all()

    def seconds_until_next(self, *, most_seconds: float) -> float:
        """Wait for an answer and return how long that took; `most_seconds` if there was none."""
        began = time.monotonic()
        with self._answered:
            self._answered.wait_for(lambda: self._answered_at > began, most_seconds)
            return self._answered_at - began if self._answered_at > began else most_seconds
