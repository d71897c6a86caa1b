"""Somebody asks all the time while files are saved; what was answered, and how many sessions the server had."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from statistics import median

import psycopg

from tests.saves.project import POOL_SIZE, Project
from tests.support.asker import Asker
from tests.support.postgres import ThrowawayPostgres

SAMPLE_SECONDS = 0.01
BETWEEN_SAVES_SECONDS = 1.2
UNNOTICED_SECONDS = 5.0
"""What is saved before a reloader has seen the file once is not noticed; then it is saved again."""
LONGEST_START_SECONDS = 30.0
FINE = ("200", "refused")


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
        found = []
        if self.server == "runserver":  # others end in their own way
            found += [f"{many} requests: {what}" for what, many in self.answers.items() if what not in FINE]
        if not self.most_sessions:
            found.append("no session was ever seen")
        if self.most_sessions > POOL_SIZE:
            found.append(f"{self.most_sessions} sessions, and the pool has {POOL_SIZE}")
        if self.sessions_after:
            found.append(f"{self.sessions_after} sessions after the end")
        return found

    def __str__(self) -> str:
        answers = ", ".join(f"{what} × {many}" for what, many in sorted(self.answers.items()))
        after = "?" if self.sessions_after < 0 else self.sessions_after
        return (
            f"{self.server}: {self.saves} saves in {self.seconds:.0f} s; answers: {answers}; sessions: at most "
            f"{self.most_sessions} of {POOL_SIZE}, {after} after the end; save to first answer: median "
            f"{median(self.pauses or [0]):.1f} s, longest {max(self.pauses, default=0):.1f} s"
        )


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
    with Project(postgres.url(database), server) as project, ExitStack() as stack:
        askers = [stack.enter_context(Asker(f"{project.url}/", report.answers)) for _ in range(2)]
        if slow_seconds:
            askers.append(stack.enter_context(Asker(f"{project.url}/slow?seconds={slow_seconds}")))
        _wait_for_another(askers[0], 0, project)
        report.answers.clear()  # nobody listened before it had started
        for number in range(1, saves + 1):
            time.sleep(BETWEEN_SAVES_SECONDS)
            before, saved_at = _pid(askers[0]), time.monotonic()
            project.save()
            _wait_for_another(askers[0], before, project, again=project.save)
            report.pauses.append(time.monotonic() - saved_at)
            report.saves, report.seconds = number, time.monotonic() - began
            if number % 20 == 0:
                say(f"  {report}")
        for asker in askers:
            asker.stop()
        project.stop()
    time.sleep(0.5 if not slow_seconds else 2.5)
    stopping.set()
    counting.join()
    report.sessions_after = postgres.backends(database)
    return report


def _pid(asker: Asker) -> int:
    return int(json.loads(asker.last_body or "{}").get("pid", 0))


def _wait_for_another(asker: Asker, pid: int, project: Project, again: Callable[[], None] | None = None) -> None:
    deadline = time.monotonic() + LONGEST_START_SECONDS
    unnoticed_at = time.monotonic() + UNNOTICED_SECONDS
    while _pid(asker) == pid:
        if again is not None and time.monotonic() > unnoticed_at:
            again()
            unnoticed_at += UNNOTICED_SECONDS
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
