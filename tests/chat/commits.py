"""A COMMIT that is never answered."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest


def interrupt_commit(monkeypatch: pytest.MonkeyPatch, *, stored: bool, times: int = 1) -> None:
    """The session is lost before COMMIT is answered; whether it happened, the first time, is to be found out."""
    commit = psycopg.Connection.commit
    interruptions = 0

    def interrupted(session: psycopg.Connection[Any]) -> None:
        nonlocal interruptions
        interruptions += 1
        if interruptions == times:
            monkeypatch.setattr(psycopg.Connection, "commit", commit)
        if stored and interruptions == 1:
            commit(session)
        session.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", interrupted)
