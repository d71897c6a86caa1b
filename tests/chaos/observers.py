"""Who looks on while it happens: how many sessions the server has, and whether the site answers."""

from __future__ import annotations

import threading
import time
import urllib.request
from contextlib import suppress

import psycopg

from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

EVERY_SECONDS = 0.1


class Observer:
    """Looks again and again in a thread of its own, for the block."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.look()

    def look(self) -> None:
        raise NotImplementedError


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
