"""A few saves under each server that loads code anew; `make reload-check` makes hundreds."""

from __future__ import annotations

import pytest

from tests.saves import trial
from tests.saves.project import POOL_SIZE, SERVERS
from tests.support.postgres import ThrowawayPostgres

pytestmark = [pytest.mark.slow, pytest.mark.timed]


@pytest.fixture
def database(database_url: str) -> str:
    return database_url.rsplit("/", 1)[1]


@pytest.mark.parametrize("server", SERVERS)
def test_saves_leave_no_session_behind(server: str, postgres: ThrowawayPostgres, database: str) -> None:
    report = trial.run(postgres, database, server=server, saves=2)
    assert not report.broken, report
    assert report.answers["200"] > 10


def test_what_runs_at_a_save_is_ended(postgres: ThrowawayPostgres, database: str) -> None:
    """A query of half a minute does not add a session with each save."""
    report = trial.run(postgres, database, server="runserver", saves=3, slow_seconds=30)
    assert not report.broken, report
    assert report.most_sessions <= POOL_SIZE
