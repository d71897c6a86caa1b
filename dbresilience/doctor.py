"""Looks at settings and at the live server, outside the pool, and says what is wrong.

Asking is here, the verdicts are in `diagnosis`; the rules for settings alone are those of the system checks.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from django.core.checks import CheckMessage
from django.db import connections

from .addresses import without_addresses
from .aliases import Alias
from .capacity import Processes
from .checks import SETTINGS_CHECKS, poolers
from .checks.rules import message
from .deadlines import deadline
from .diagnosis import diagnose
from .errors import classify
from .examining import examine
from .facts import Facts
from .findings import Finding, counts, error, fine, worst_first
from .meanings import while_connecting
from .resources import get_database_resources

LONGEST_EXAMINATION_SECONDS = 20.0
_REMEDIES = {
    "credentials": "Correct USER and PASSWORD of DATABASES[{alias!r}]; docs/howto/rotate-the-password.md",
    "server_full": "Lower max_size, or ALTER SYSTEM SET max_connections = …; and restart the server",
    "pooler_full": "Raise max_client_conn of the pooler, or lower max_size",
    "starting": "Wait: the server starts or recovers",
    "no_writer": "Promote a standby, or correct HOST and target_session_attrs of DATABASES[{alias!r}]",
    "not_transient": "Correct NAME, or what is named in OPTIONS, of DATABASES[{alias!r}]",
}
_REMEDY = "Start PostgreSQL, or correct HOST and PORT of DATABASES[{alias!r}]"


@dataclass(frozen=True)
class Examination:
    """What a doctor has found of one alias.

    Attributes:
        alias: of whom.
        processes: how many there are.
        reached: whether the server let us in.
        findings: worst first.
        facts: what the server said; None if it was not reached.
    """

    alias: str
    processes: Processes
    reached: bool
    findings: list[Finding]
    facts: Facts | None

    @property
    def is_well(self) -> bool:
        """Whether there is nothing to be set."""
        return all(finding.severity == "fine" for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "database": self.alias,
            "reached": self.reached,
            "processes": asdict(self.processes),
            "counts": counts(self.findings),
            "findings": [asdict(finding) for finding in self.findings],
            "server": None if self.facts is None else asdict(self.facts.server),
        }


def consult(alias: str, processes: Processes, *, show_addresses: bool = False) -> Examination:
    """Look at one alias's settings and server.

    Raises:
        OtherEngine: the alias uses another backend.
        ImproperlyConfigured: its settings are impossible.
    """
    get_database_resources(alias)
    given = Alias(alias, connections[alias].settings_dict)
    found = [Finding.of(each) for each in _complaints(given)]
    facts: Facts | None = None
    try:
        with deadline(LONGEST_EXAMINATION_SECONDS):
            facts = examine(given, processes)
    except psycopg.Error as refusal:
        found.append(_away(alias, refusal))
    else:
        known = {finding.name for finding in found}
        if facts.server.pooler == "transaction":
            found += [
                Finding.of(message(identity, mistake))
                for identity, rule in poolers.RULES.items()
                if identity not in known
                for mistake in rule(given)
            ]
        found += diagnose(facts)
    if show_addresses:
        found.append(fine("address", f"HOST {given.given.get('HOST')!r}, PORT {given.given.get('PORT')!r}."))
    return Examination(alias, processes, facts is not None, worst_first(found), facts)


def _complaints(given: Alias) -> list[CheckMessage]:
    """What system checks say of this alias and of the site, without those that are silenced."""
    said: list[CheckMessage] = []
    for check in SETTINGS_CHECKS:
        if check.of is None:
            said += check(None)
        # What `--deploy` looks at is a server's business in production, or seen on the connection itself.
        elif not check.deploy:
            said += [message(check.id, mistake) for mistake in check.of(given)]
    return [each for each in said if not each.is_silenced()]


def _away(alias: str, refusal: psycopg.Error) -> Finding:
    meaning = while_connecting(classify(refusal)).name
    text = without_addresses(" ".join(str(refusal).split()))
    remedy = _REMEDIES.get(meaning, _REMEDY).format(alias=alias)
    return error("connection", f"The server cannot be asked ({meaning}): {text}", remedy)
