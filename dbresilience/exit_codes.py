"""Exit codes of `manage.py dbresilience`, the same for each of its orders; what each means there, `--help` says."""

from __future__ import annotations

WELL = 0
NOT_WELL = 1
UNUSABLE = 2
"""A wrong argument or setting, or nothing to show."""
AWAY = 3
