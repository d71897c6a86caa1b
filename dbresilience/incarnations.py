"""Tells a process from a later one that was given the same id, as the first process of a restarted container is."""

from __future__ import annotations

import os
from pathlib import Path

_START_TIME = 19
"""Field 22 of /proc/<pid>/stat, counted from behind the name, which may hold anything."""


def incarnation_of(pid: int) -> str | None:
    """Return what only this process has of all that ever had its id; None where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return f"{boot}/{fields[_START_TIME]}"
    except (OSError, IndexError):
        return None


def is_there(pid: int, incarnation: str | None) -> bool:
    """Return whether that very process exists; any of its id counts where there was nothing to tell it by."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    now = incarnation_of(pid) if incarnation is not None else None
    return now is None or now == incarnation
