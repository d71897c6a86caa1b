"""Somebody who asks one address again and again, each time on a new connection, and counts what comes of it."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections import Counter

AFTER_FAILURE_SECONDS = 0.02


class Asker:
    """`with Asker(url) as asker:` asks until the block ends; `asker.answers` counts statuses, ``refused``, ``cut``."""

    def __init__(self, url: str, answers: Counter[str] | None = None, **headers: str) -> None:
        self.answers = Counter[str]() if answers is None else answers
        self.last_body = b""
        self._request = urllib.request.Request(url, headers=headers)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop()
        self._thread.join(30)

    def stop(self) -> None:
        """Ask no more; what comes of the last question does not count if its server ends."""
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            outcome = self._ask()
            if outcome.isdecimal() or not self._stopping.is_set():
                self.answers[outcome] += 1
            if not outcome.startswith("2"):
                time.sleep(AFTER_FAILURE_SECONDS)

    def _ask(self) -> str:
        try:
            with urllib.request.urlopen(self._request, timeout=30) as response:
                self.last_body = response.read()
                return str(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            return "refused" if isinstance(cause, ConnectionRefusedError) else f"cut ({type(cause).__name__})"
