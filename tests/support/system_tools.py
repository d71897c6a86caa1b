"""Programs that only the system can install: without one its tests skip, or fail where they must run."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing_tool(reason: str) -> NoReturn:
    """Skip the test; fail it where REQUIRE_SYSTEM_TOOLS says that everything must be there."""
    if os.environ.get("REQUIRE_SYSTEM_TOOLS") == "1":
        pytest.fail(f"{reason}, and REQUIRE_SYSTEM_TOOLS=1")
    pytest.skip(reason)
