"""What happens to PostgreSQL and the way to it, in an order that the seed decides."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy

LONGEST_FREEZE_SECONDS = 3.0
GIVEN_UP_SECONDS = 20.0
"""How long a return is waited for before the next disturbance."""


class Disturbances:
    """One after the other until `stop()`, with calm between them; `happened` counts them.

    `returns` has how long the site took to answer again after each, as `seconds_until_next` measures it.
    """

    def __init__(
        self,
        server: ThrowawayPostgres,
        proxy: Proxy,
        database: str,
        *,
        seed: int,
        calm_seconds: tuple[float, float],
        seconds_until_next: Callable[..., float],
    ) -> None:
        self.happened: Counter[str] = Counter()
        self.returns: list[tuple[float, str]] = []
        self.now = ""
        self.error: BaseException | None = None
        self._server, self._proxy, self._database = server, proxy, database
        self._calm_seconds = calm_seconds
        self._seconds_until_next = seconds_until_next
        self._dice = random.Random(f"{seed}-disturbances")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="disturbances", daemon=True)
        # Twice what happens most often.
        self._kinds: list[tuple[str, Callable[[], None]]] = [
            ("sessions terminated", self._terminate),
            ("sessions terminated", self._terminate),
            ("COMMIT cut", self._cut_at_commit),
            ("COMMIT cut", self._cut_at_commit),
            ("restarted", self._restart),
            ("crashed", self._crash),
            ("one backend crashed", self._crash_one),
            ("frozen", self._freeze),
            ("connections reset", self._reset),
            ("refused", self._refuse),
            ("packets swallowed", self._swallow),
        ]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Wait for the end of what happens now; all is well then."""
        self._stop.set()
        self._thread.join()
        self._proxy.cuts.clear()
        self._proxy.restore()
        self._server.thaw()
        self._server.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._dice.uniform(*self._calm_seconds)):
                self.now, happen = self._dice.choice(self._kinds)
                happen()
                took = self._seconds_until_next(most_seconds=GIVEN_UP_SECONDS)
                self.returns.append((took, self.now))
                self.happened[self.now] += 1
                self.now = ""
        except BaseException as error:  # the trial fails with it
            self.error = error

    def _sleep(self, shortest_seconds: float, longest_seconds: float) -> None:
        time.sleep(self._dice.uniform(shortest_seconds, longest_seconds))

    def _terminate(self) -> None:
        part = self._dice.choice([0.3, 1.0])
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND random() < %s",
                [self._database, part],
            )

    def _cut_at_commit(self) -> None:
        after = self._dice.choice([SEEN, SENT, ANSWERED])
        cut = self._proxy.cut_when(is_commit, after=after, times=self._dice.choice([1, 3]))
        cut.happened.wait(1)
        self._proxy.cuts.clear()

    def _restart(self) -> None:
        self._server.stop("fast")
        self._sleep(0, 1.5)
        self._server.start()

    def _crash(self) -> None:
        self._server.kill()
        self._sleep(0, 1.5)
        self._server.start()

    def _crash_one(self) -> None:
        """The server ends all other sessions too, and recovers."""
        pids = self._server.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{self._database}' LIMIT 1")
        if pids:
            os.kill(int(str(pids[0][0])), signal.SIGKILL)
            wait_until(self._accepts, timeout_seconds=30, what="recovery")

    def _accepts(self) -> bool:
        try:
            return bool(self._server.execute("SELECT 1"))
        except psycopg.OperationalError:
            return False

    def _freeze(self) -> None:
        self._server.freeze()
        self._sleep(0.2, LONGEST_FREEZE_SECONDS)
        self._server.thaw()

    def _reset(self) -> None:
        self._proxy.reset()
        self._sleep(0, 1.5)
        self._proxy.restore()

    def _refuse(self) -> None:
        self._proxy.refuse()
        self._proxy.cut()
        self._sleep(0, 1.5)
        self._proxy.restore()

    def _swallow(self) -> None:
        self._proxy.swallow()
        self._sleep(0.2, LONGEST_FREEZE_SECONDS)
        self._proxy.restore()
