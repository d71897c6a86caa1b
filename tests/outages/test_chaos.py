"""People chat while PostgreSQL is killed, restarted, frozen and cut off; nothing is lost, nothing is there twice.

`make chaos SEED=7 TURNS=10000` is the same for as long as you like.
"""

from __future__ import annotations

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.chaos import trial
from tests.support.postgres import ThrowawayPostgres

pytestmark = pytest.mark.slow


def test_everything_survives(postgres: ThrowawayPostgres, database_url: str) -> None:
    """Each acknowledged turn once, each refused one repeatable, only 200, 429 and 503, and nothing left open."""
    database = str(conninfo_to_dict(database_url)["dbname"])
    report = trial.run(postgres, database, seed=4, turns=200, limit_seconds=30, calm_seconds=(0.2, 1.0), say=print)
    assert report.disturbances.total() >= 3
    assert not report.broken, str(report)
