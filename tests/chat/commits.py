"""A COMMIT that is never answered."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest


def interrupt_commit(monkeypatch: pytest.MonkeyPatch, *, stored: bool) -> None:
    """The session is lost before COMMIT is answered, once; whether it happened is to be found out."""
    commit = psycopg.Connection.commit

    def interrupted(session: psycopg.Connection[Any]) -> None:
        monkeypatch.setattr(psycopg.Connection, "commit", commit)
        if stored:
            commit(session)
        session.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(psycopg.Connection, "commit", interrupted)
