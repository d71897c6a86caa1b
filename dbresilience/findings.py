"""What a doctor has found: how bad it is, the figures, and the line that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from django.core.checks import ERROR, CheckMessage

SEVERITIES = ("error", "warning", "fine")
"""Worst first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        severity: one of `SEVERITIES`.
        name: what was looked at, or the id of a system check.
        found: what there is, with its figures.
        set: what to set, as it can be pasted; empty if nothing has to be.
    """

    severity: str
    name: str
    found: str
    set: str = ""

    @classmethod
    def of(cls, message: CheckMessage) -> Finding:
        """Make one of a system check's message."""
        severity = "error" if message.level >= ERROR else "warning"
        return cls(severity, str(message.id), str(message.msg), message.hint or "")

    def __str__(self) -> str:
        text = f"{self.severity.upper() if self.severity != 'fine' else self.severity:<8}{self.name}: {self.found}"
        return f"{text}\n{'':<8}→ {self.set}" if self.set else text


def error(name: str, found: str, set: str = "") -> Finding:
    """Something does not work, or will not."""
    return Finding("error", name, found, set)


def warning(name: str, found: str, set: str = "") -> Finding:
    """Something will not work when it matters."""
    return Finding("warning", name, found, set)


def fine(name: str, found: str, set: str = "") -> Finding:
    """Nothing is wrong; `set` may say what could be better."""
    return Finding("fine", name, found, set)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Put them in order, those of one severity as they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many there are of each severity."""
    found = [finding.severity for finding in findings]
    return {severity: found.count(severity) for severity in SEVERITIES}
