"""Somebody asks all the time while files are saved; what was answered, and how many sessions the server had."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

import psycopg

from tests.saves.project import POOL_SIZE, Project
from tests.support.postgres import ThrowawayPostgres

SAMPLE_SECONDS = 0.01
BETWEEN_SAVES_SECONDS = 0.5
"""Longer than a reloader takes from serving to having seen all files once; what is saved before is not noticed."""
LONGEST_START_SECONDS = 30.0


@dataclass
class Report:
    """What was seen, and in `broken` what must not be."""

    server: str
    saves: int = 0
    seconds: float = 0.0
    most_sessions: int = 0
    sessions_after: int = -1
    answers: Counter[str] = field(default_factory=Counter)
    pauses: list[float] = field(default_factory=list)
    """Seconds from a save to the first answer of the new process."""

    @property
    def broken(self) -> list[str]:
        found = [f"{many} requests: {what}" for what, many in self.answers.items() if what not in ("200", "refused")]
        if self.most_sessions > POOL_SIZE:
            found.append(f"{self.most_sessions} sessions, and the pool has {POOL_SIZE}")
        if self.sessions_after:
            found.append(f"{self.sessions_after} sessions after the end")
        return found

    def __str__(self) -> str:
        answers = ", ".join(f"{what} × {many}" for what, many in sorted(self.answers.items()))
        return (
            f"{self.server}: {self.saves} saves in {self.seconds:.0f} s; answers: {answers}; sessions: at most "
            f"{self.most_sessions} of {POOL_SIZE}, {self.sessions_after} after the end; save to first answer: median "
            f"{median(self.pauses or [0]):.1f} s, longest {max(self.pauses, default=0):.1f} s"
        )


class _Asker:
    """Asks one address again and again, on a new connection each time."""

    def __init__(self, url: str, answers: Counter[str]) -> None:
        self.pid = 0
        self._url, self._answers = url, answers
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self.stopping.is_set():
            outcome = self._ask()
            if outcome is not None:
                self._answers[outcome] += 1
            if outcome != "200":
                time.sleep(0.02)

    def _ask(self) -> str | None:
        try:
            with urllib.request.urlopen(self._url, timeout=20) as response:
                self.pid = json.load(response)["pid"]
                return str(response.status)
        except urllib.error.HTTPError as error:
            error.close()
            return str(error.code)
        except (OSError, ValueError) as error:
            if self.stopping.is_set():
                return None  # it was stopped together with its server
            cause = getattr(error, "reason", error)
            return "refused" if isinstance(cause, ConnectionRefusedError) else f"cut off ({type(cause).__name__})"


def run(
    postgres: ThrowawayPostgres,
    database: str,
    *,
    server: str,
    saves: int,
    slow_seconds: float = 0.0,
    say: Callable[[str], None] = print,
) -> Report:
    """Save `saves` times, each as soon as the process before has answered.

    Args:
        slow_seconds: how long one more query takes that is always running; its request may be broken off by a save.
    """
    report = Report(server)
    began = time.monotonic()
    stopping = threading.Event()
    counting = threading.Thread(target=_count, args=[postgres, database, report, stopping], daemon=True)
    counting.start()
    with Project(postgres.url(database), server) as project:
        askers = [_Asker(f"{project.url}/", report.answers) for _ in range(2)]
        if slow_seconds:
            askers.append(_Asker(f"{project.url}/slow?seconds={slow_seconds}", Counter()))
        _wait_for_another(askers[0], 0, project, start=askers)
        report.answers.clear()  # nobody listened before it had started
        for number in range(1, saves + 1):
            time.sleep(BETWEEN_SAVES_SECONDS)
            before, saved_at = askers[0].pid, time.monotonic()
            project.save()
            _wait_for_another(askers[0], before, project)
            report.pauses.append(time.monotonic() - saved_at)
            report.saves = number
            if number % 20 == 0:
                say(f"  {report}")
        for asker in askers:
            asker.stopping.set()
        project.stop()
        for asker in askers:
            asker.thread.join(25)
    time.sleep(0.5 if not slow_seconds else 2.5)
    stopping.set()
    counting.join()
    report.sessions_after = postgres.backends(database)
    report.seconds = time.monotonic() - began
    return report


def _wait_for_another(asker: _Asker, pid: int, project: Project, start: list[_Asker] | None = None) -> None:
    for each in start or []:
        each.thread.start()
    deadline = time.monotonic() + LONGEST_START_SECONDS
    while asker.pid == pid:
        if time.monotonic() > deadline:
            raise AssertionError(f"No new process answers:\n{project.log[-600:]}")
        time.sleep(0.01)


def _count(postgres: ThrowawayPostgres, database: str, report: Report, stopping: threading.Event) -> None:
    with psycopg.connect(postgres.url("postgres"), autocommit=True) as connection:
        while not stopping.wait(SAMPLE_SECONDS):
            (sessions,) = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'",
                [database],
            ).fetchone() or (0,)
            report.most_sessions = max(report.most_sessions, sessions)
