"""The page that people see while the database cannot serve: true in every case, and whole without any variable."""

from __future__ import annotations

from typing import Any

import pytest
from django.template.loader import get_template

KNOWN: dict[str, Any] = {"retry_after": 7, "reload": False, "status": 503, "outcome_unknown": False, "away": True}


@pytest.mark.parametrize(
    ("context", "says", "says_not"),
    [
        ({**KNOWN, "reload": True}, ["Back in a moment", "returns by itself", "Looking again in 7 s"], ["go through"]),
        ({**KNOWN, "reload": True, "away": False}, ["Very busy", "returns by itself"], ["is away"]),
        (KNOWN, ["Back in a moment", "not go through", "Send again"], ["by itself"]),
        ({**KNOWN, "away": False}, ["Very busy", "not go through", "Send again"], ["is away"]),
        ({**KNOWN, "outcome_unknown": True}, ["may or may not have been stored"], ["Send again", "unavailable.js"]),
        ({**KNOWN, "status": 504, "away": False}, ["took too long", "Try again"], ["is away", "by itself"]),
        ({}, ["Back in a moment", "in 5 s"], ["by itself"]),
        ({"reload": True}, ["Back in a moment", "by itself"], ["go through"]),
    ],
)
def test_the_503_page_says_what_is_so(context: dict[str, Any], says: list[str], says_not: list[str]) -> None:
    """Away or busy, sent or only looked at, too slow, or nobody knows what became of it."""
    page = get_template("503.html").render(context)
    assert [text for text in says if text not in page] == []
    assert [text for text in says_not if text in page] == []
    reloads = bool(context.get("reload"))
    assert ('data-reload="true"' in page) is reloads
    assert ('http-equiv="refresh"' in page) is reloads
