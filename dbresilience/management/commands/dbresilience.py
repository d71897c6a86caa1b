"""`manage.py dbresilience`: how every process is, the doctor, and orders to all processes of this machine."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from time import monotonic, sleep, time
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, connections

from dbresilience import activity, get_database_resources
from dbresilience.activity import Activity
from dbresilience.consulting import add_doctor, carry_out
from dbresilience.exit_codes import AWAY, NOT_WELL, UNUSABLE
from dbresilience.live_view import repeatedly, watch
from dbresilience.operators import LONGEST_PAUSE_SECONDS, LOOK_SECONDS, OrderFile, OrdersUnusable
from dbresilience.overview import overview
from dbresilience.plurals import number_of
from dbresilience.resources import DatabaseResources, OtherEngine
from dbresilience.status_text import status_lines

STATUS_SECONDS = 2.0
"""How long `status` waits for the server's own word: it looks once, unlike `watch` and the dashboard."""
HEARING_SECONDS = LOOK_SECONDS * 1.2
"""Until every process that is asked something has looked."""

IDLE = "Idle processes hear it with their next request, which waits then."
UNHEARD = (
    "Nobody has heard it yet: idle processes hear it with their next request. "
    "If the site is being asked, check the user, TMPDIR and runtime_folder."
)

UNSEEN = "If the site is running, check the user, TMPDIR and runtime_folder, and that INSTALLED_APPS has dbresilience."


def _heard(processes: int) -> str:
    return f"Heard by {number_of(processes, 'process', 'processes')} so far."


def _seconds(*, least: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1
        if not least <= number <= LONGEST_PAUSE_SECONDS:
            raise argparse.ArgumentTypeError(f"{text!r}: give seconds, {least:g} to {LONGEST_PAUSE_SECONDS:g}")
        return number

    return parse


class Command(BaseCommand):
    """Orders of an operator."""

    help = "Show, examine, pause, resume or recycle the connections of every process of this user on this machine."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """One parser for each order."""
        orders = parser.add_subparsers(dest="order", metavar="order", required=True)
        pause = orders.add_parser(
            "pause",
            help="let requests wait, and say when PostgreSQL may be restarted",
            description="Exit codes: 0 paused and nobody at work, whether or not a process has heard it; "
            "1 somebody was still at work, so the pause was withdrawn; "
            "2 a wrong argument or setting; 3 the database cannot be reached, so the pause was withdrawn.",
        )
        pause.add_argument(
            "--seconds", type=_seconds(least=1), default=60.0, help="when the pause ends by itself (default: 60)"
        )
        pause.add_argument(
            "--wait-seconds", type=_seconds(least=0), default=20.0,
            help="longest wait for those at work; 0 does not look (default: 20)",
        )  # fmt: skip
        resume = orders.add_parser("resume", help="end the pause")
        recycle = orders.add_parser("recycle", help="replace every connection, used ones when they are given back")
        status = orders.add_parser(
            "status",
            help="show every process of this user on this machine, and the worst thing",
            description="Exit codes: 0 well; 1 a pool or the server is full, requests were refused just now or are "
            "paused, or a process is silent; "
            "2 a wrong argument or setting, or no process has used the database within the last hour; "
            "3 the database is away.",
        )
        watch = orders.add_parser("watch", help="show the same once a second, until Ctrl-C")
        for each in (add_doctor(orders), pause, resume, recycle, status, watch):
            each.add_argument(
                "--database", default=DEFAULT_DB_ALIAS, choices=tuple(connections), help="its alias (default: default)"
            )
            each.add_argument("--json", action="store_true", help="one JSON object on standard output, for programs")

    def handle(self, *args: Any, order: str, database: str, json: bool, **options: Any) -> None:
        """Carry out one order."""
        self._json = json
        try:
            if order == "doctor":
                self._doctor(database, **options)
                return
            resources = get_database_resources(database)
            resources.pool_or_error()
            getattr(self, f"_{order}")(resources, resources.orders, **options)
        except (OrdersUnusable, ImproperlyConfigured, OtherEngine) as error:
            self._fail(str(error), UNUSABLE, {"order": order, "database": database})

    def _doctor(self, database: str, **options: Any) -> None:
        verdict = carry_out(database, self._say, **options)
        if verdict.code:
            self._fail(verdict.text, verdict.code, verdict.facts)
        self._done(verdict.text, verdict.facts)

    def _pause(
        self, resources: DatabaseResources, file: OrderFile, *, seconds: float, wait_seconds: float, **_: Any
    ) -> None:
        facts: dict[str, Any] = {"order": "pause", "database": resources.alias, "paused": False}
        before: Activity | None = None
        after: Activity | None = None
        began = monotonic()
        until: float | None = None
        try:
            if wait_seconds == 0:
                until = file.pause(seconds)
                sleep(HEARING_SECONDS)
            else:
                with closing(resources.connect()) as connection:
                    longest = min(wait_seconds, seconds)
                    before = activity.look(connection)
                    until = file.pause(seconds)
                    self._say(f"Pausing {resources.alias!r} on this machine for {seconds:g} s. Now: {before}.")
                    sleep(HEARING_SECONDS)
                    after = activity.wait_until_quiet(
                        connection, longest, lambda now: self._say(f"Waiting until nobody is at work: {now}.")
                    )
        except psycopg.Error as error:
            self._withdraw(file, until)
            said = " ".join(str(error).split())
            self._fail(f"The database cannot be asked who is at work, so this pause is off: {said}", AWAY, facts)
        except BaseException:
            self._withdraw(file, until)
            raise
        assert until is not None
        facts["waited_seconds"] = round(monotonic() - began, 3)
        heard_by = facts["heard_by"] = file.heard_by()
        sessions = ""
        if before is not None and after is not None:
            ended = len({session.pid for session in before.sessions} - {session.pid for session in after.sessions})
            facts |= {"sessions_before": len(before.sessions), "sessions_ended": ended}
            facts |= {"at_work": len(after.at_work), "idle": after.idle}
            sessions = f" {ended} of {len(before.sessions)} sessions ended, {after.idle} idle."
        if after is not None and after.at_work:
            self._withdraw(file, until)
            text = (
                f"{len(after.at_work)} were still at work after {wait_seconds:g} s, so this pause is off: "
                f"{'; '.join(map(str, after.at_work[:5]))}. {_heard(heard_by)} "
                "Wait longer (--wait-seconds), or look whether these processes "
                "run on this machine, as this user and with the same TMPDIR or runtime_folder."
            )
            self._fail(text, NOT_WELL, facts)
        end = datetime.fromtimestamp(until, UTC)
        facts |= {"paused": True, "paused_until": end.isoformat(timespec="seconds")}
        facts["seconds_left"] = round(until - time(), 1)
        note = ""
        if after is None or after.idle:
            note = f"{IDLE if heard_by else UNHEARD}\n"
        self._done(
            f"Paused until {end:%H:%M:%S} UTC ({facts['seconds_left']:g} s).{sessions} {_heard(heard_by)}\n{note}"
            "Restart PostgreSQL now, then run: manage.py dbresilience resume",
            facts,
        )

    def _withdraw(self, file: OrderFile, until: float | None) -> None:
        # Another operator may have ordered a pause since.
        if until is not None:
            file.resume(ordered_until=until)

    def _resume(self, resources: DatabaseResources, file: OrderFile, **_: Any) -> None:
        was_paused = file.resume()
        facts: dict[str, Any] = {"order": "resume", "database": resources.alias, "was_paused": was_paused}
        if not was_paused:
            self._done(f"{resources.alias!r} was not paused.", facts)
            return
        sleep(HEARING_SECONDS)
        facts["heard_by"] = file.heard_by()
        self._done(f"Resumed {resources.alias!r}: those who waited go on. {_heard(facts['heard_by'])}", facts)

    def _recycle(self, resources: DatabaseResources, file: OrderFile, **_: Any) -> None:
        file.recycle()
        sleep(HEARING_SECONDS)
        heard_by = file.heard_by()
        text = f"Every process replaces its connections to {resources.alias!r} before it uses them next."
        self._done(
            f"{text} {_heard(heard_by)}{'' if heard_by else f' {UNHEARD}'}",
            {"order": "recycle", "database": resources.alias, "heard_by": heard_by},
        )

    def _status(self, resources: DatabaseResources, file: OrderFile, **_: Any) -> None:
        found = overview(resources, server_timeout_seconds=STATUS_SECONDS)
        facts = found.facts()
        if not facts["processes"]:
            text = f"No process has used {resources.alias!r} within the last hour. {UNSEEN}"
            self._fail(text, AWAY if found.headline.code == AWAY else UNUSABLE, facts)
        self._done("\n".join(status_lines(facts, width=shutil.get_terminal_size((120, 24)).columns)), facts)
        if found.headline.code:
            sys.exit(found.headline.code)

    def _watch(self, resources: DatabaseResources, file: OrderFile, **_: Any) -> None:
        look = lambda: overview(resources).facts()  # noqa: E731
        with suppress(KeyboardInterrupt, BrokenPipeError):
            if self._json:
                for facts in repeatedly(look):
                    self.stdout.write(json.dumps(facts))
                    self.stdout.flush()
            if not sys.stdout.isatty():
                raise CommandError(
                    "watch draws on a terminal, and standard output is none: use status, or watch --json.",
                    returncode=UNUSABLE,
                )
            watch(look, sys.stdout)

    def _say(self, text: str) -> None:
        if not self._json:
            self.stdout.write(text)

    def _done(self, text: str, facts: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(facts) if self._json else text)

    def _fail(self, text: str, code: int, facts: dict[str, Any]) -> None:
        if self._json:
            self.stdout.write(json.dumps(facts | {"error": text}))
        raise CommandError(text, returncode=code)
