"""A whole trial: people, disturbances and observers at the same time, then the verdict."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median

from tests.chaos.disturbances import Disturbances
from tests.chaos.observers import Livez, Returns, Sessions
from tests.chaos.people import People
from tests.chaos.questions import ATTEMPT_SECONDS, NOTHING
from tests.chaos.verdict import judge
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy
from tests.support.site import Site

WORKERS = 2
POOL_SIZE = 5
MODEL_SECONDS = 0.05
# Nobody is to be throttled here.
RATE = "1000000/min"
PROGRESS_SECONDS = 5.0
# What is broken is told so often; it is mostly the same.
TOLD = 20


@dataclass
class Report:
    """What was seen, and in `broken` what must not be."""

    seed: int
    turns: int
    seconds: float = 0.0
    acknowledged: int = 0
    given_up: int = 0
    attempts: Counter[str] = field(default_factory=Counter)
    longest_attempt_seconds: float = 0.0
    disturbances: Counter[str] = field(default_factory=Counter)
    returns: list[tuple[float, str]] = field(default_factory=list)
    """Seconds from the end of a disturbance to the next answer, and which one it was."""
    most_sessions: int = 0
    sessions_bound: int = 0
    longest_above_bound_seconds: float = 0.0
    longest_livez_seconds: float = 0.0
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        attempts = ", ".join(f"{status} × {many}" for status, many in sorted(self.attempts.items()))
        disturbances = ", ".join(f"{kind} × {many}" for kind, many in sorted(self.disturbances.items()))
        times = [seconds for seconds, _ in self.returns] or [0.0]
        slowest, after = max(self.returns, default=(0.0, "nothing"))
        rows = [
            ("turns", f"{self.turns}: {self.acknowledged} acknowledged, {self.given_up} refused and left for the end"),
            ("time", f"{self.seconds:.0f} s, {self.acknowledged / max(self.seconds, 1):.0f} turns a second"),
            ("answers", attempts),
            ("longest attempt", f"{self.longest_attempt_seconds:.1f} s"),
            ("disturbances", f"{self.disturbances.total()}: {disturbances}"),
            ("first 200 afterwards", f"median {median(times):.2f} s, worst {slowest:.2f} s (after: {after})"),
            ("sessions on the server", f"at most {self.most_sessions}, allowed {self.sessions_bound}; "
                                       f"above for {self.longest_above_bound_seconds:.1f} s at most"),
            ("longest /livez", f"{self.longest_livez_seconds * 1000:.0f} ms"),
            ("broken", str(len(self.broken)) if self.broken else "nothing"),
        ]  # fmt: skip
        told = self.broken[:TOLD] + [f"and {len(self.broken) - TOLD} more"] * (len(self.broken) > TOLD)
        lines = ["", *(f"  {name:24} {value}" for name, value in rows), *(f"  - {what}" for what in told)]
        return "\n".join([*lines, "", f"  again: make chaos SEED={self.seed} TURNS={self.turns}"])


def site_of(proxy: Proxy, database_url: str, worker_class: str) -> Site:
    """The site as production serves it, but with pools so small that they are always used up."""
    return Site(
        f"{proxy.url(database_url)}?pool_max_size={POOL_SIZE}",
        worker_class=worker_class,
        WEB_CONCURRENCY=str(WORKERS),
        CHAT_RATE=RATE,
        CHAT_AGENT_DELAY_SECONDS=str(MODEL_SECONDS),
    )


def run(
    server: ThrowawayPostgres,
    database: str,
    *,
    seed: int,
    turns: int,
    people: int = 16,
    limit_seconds: float,
    calm_seconds: tuple[float, float] = (0.5, 2.5),
    worker_class: str = "gthread",
    say: Callable[[str], None] = lambda line: None,
) -> Report:
    """Let `people` ask `turns` questions on a migrated `database` of `server`, which is well again afterwards.

    Args:
        limit_seconds: after this long the disturbances stop, and who has not finished soon after is stuck.
        calm_seconds: least and most time between two disturbances.
        say: gets a line of progress every few seconds.
    """
    report = Report(seed, turns, sessions_bound=WORKERS * POOL_SIZE)
    url = server.url(database)
    with Proxy(server.port) as proxy, site_of(proxy, url, worker_class) as site:
        crowd = People(site, url, seed=seed, turns=turns, many=people)
        returns = Returns(site, crowd.tokens[0])
        disturbances = Disturbances(
            server,
            proxy,
            database,
            seed=seed,
            calm_seconds=calm_seconds,
            seconds_until_next=returns.seconds_until_next,
        )
        sessions, livez = Sessions(server, database, bound=report.sessions_bound), Livez(site)
        began = time.monotonic()
        with sessions, livez, returns:
            crowd.start()
            disturbances.start()
            next_line = began + PROGRESS_SECONDS
            while crowd.are_busy() and disturbances.error is None and time.monotonic() < began + limit_seconds:
                time.sleep(0.05)
                if time.monotonic() > next_line:
                    next_line += PROGRESS_SECONDS
                    happening = disturbances.now and f", now: {disturbances.now}"
                    say(f"{time.monotonic() - began:5.0f} s  {crowd.acknowledged} of {turns} turns, "
                        f"{disturbances.happened.total()} disturbances{happening}")  # fmt: skip
            crowd.stop.set()
            disturbances.stop()
            if not crowd.join(ATTEMPT_SECONDS + 5):
                report.broken.append("Somebody still waits for an answer: a thread of the site is stuck")
        report.seconds = time.monotonic() - began
        answers = [answer for question in crowd.questions for answer in question.answers]
        report.acknowledged = crowd.acknowledged
        report.attempts.update(str(answer.status) if answer.status != NOTHING else "none" for answer in answers)
        report.longest_attempt_seconds = max((answer.seconds for answer in answers), default=0.0)
        report.disturbances = disturbances.happened
        report.returns = disturbances.returns
        report.most_sessions = sessions.most
        report.longest_above_bound_seconds = sessions.longest_above_bound_seconds
        report.longest_livez_seconds = livez.longest_seconds
        report.given_up = sum(bool(q.answers) and q.acknowledgement is None for q in crowd.questions)
        if disturbances.error is not None:
            report.broken.append(f"The trial itself: {disturbances.error!r}")
        say("all is well again; repeating and counting")
        report.broken += judge(
            server, database, site, crowd, pool_size=POOL_SIZE, sessions=sessions, returns=report.returns
        )
        if report.broken:
            # A refusal is one line; what nobody expected has a traceback.
            errors = [line for line in site.log.splitlines() if "Traceback" in line]
            say("\n".join(["the last tracebacks that the site wrote:", *(line[-3000:] for line in errors[-5:])]))
    return report
