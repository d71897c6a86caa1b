"""Where the tests find the repository, and where they may write; without starting anything."""

from __future__ import annotations

from pathlib import Path

BASE_DIR = Path(__file__).resolve().parent.parent
TEST_VAR_DIR = BASE_DIR / "var" / "test"
