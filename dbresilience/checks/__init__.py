"""System checks: mistakes that settings can show, each with its fix in the hint.

Grouped by what they are about. `capacity` alone asks a server, and only where Django asks databases, as in
``manage.py migrate`` and ``manage.py check --database default``.
"""

from __future__ import annotations

from django.core.checks import Tags, register

from . import capacity, networks, passwords, placement, poolers, sites, times

SETTINGS_CHECKS = (
    *placement.CHECKS, *passwords.CHECKS, *poolers.CHECKS, *times.CHECKS, *networks.CHECKS, *sites.CHECKS,
)  # fmt: skip
"""Those that ask nobody."""
CHECKS = (*SETTINGS_CHECKS, *capacity.CHECKS)
"""Every check, in the order of the reference."""


def register_all() -> None:
    """Register the checks of this package."""
    for check in SETTINGS_CHECKS:
        register(check, deploy=check.deploy)
    for check in capacity.CHECKS:
        register(check, Tags.database)
