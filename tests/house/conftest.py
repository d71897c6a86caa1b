"""A folder for an embedded server of one test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.postgres import PostgresServer


@pytest.fixture
def var() -> Iterator[Path]:
    """A VAR_DIR; not pytest's own folder, which closes itself to the user that PostgreSQL runs as."""
    folder = Path(tempfile.mkdtemp(prefix="var-"))
    yield folder
    for data in folder.glob("**/postgres"):
        PostgresServer(data).kill()
    shutil.rmtree(folder, ignore_errors=True)
