"""Tests of Django's that our backend is meant to fail: by the end of their name, with the reason."""

from __future__ import annotations

KNOWN: dict[str, str] = {}
