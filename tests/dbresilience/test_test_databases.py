"""Test databases are created, cloned and dropped: no pool of ours stands in the way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--parallel", "4"], []], ids=["parallel", "serial"])
def test_djangos_own_runner(arguments: list[str], postgres: ThrowawayPostgres, database_url: str) -> None:
    """`manage.py test` with threads, a live server and a copied alias ends without a word about sessions."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "test", "tests.dbresilience.django_suite", "--noinput", *arguments],
        cwd=BASE_DIR,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "tests.settings", "DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stderr
    assert "being accessed by other users" not in done.stderr
    assert "Traceback" not in done.stderr
    name = database_url.rsplit("/", 1)[1]
    assert postgres.execute(f"SELECT datname FROM pg_database WHERE datname LIKE 'test_{name}%'") == []
