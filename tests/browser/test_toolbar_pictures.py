"""The pictures of the debug toolbar's panel can be taken anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.settings import BASE_DIR
from tests.support.chromium import chromium

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_the_pictures_are_taken(tmp_path: Path) -> None:
    """Of both schemes, by the command that the how-to names; it waits until the panel is there."""
    with chromium():
        pass  # skips where there is none
    command = [sys.executable, "-m", "docs.images.toolbar", str(tmp_path)]
    done = subprocess.run(command, cwd=BASE_DIR, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / f"toolbar-{scheme}.png").stat().st_size > 10_000 for scheme in ("light", "dark"))
