"""The reference of the API names every route, every event and every limit as they are in the code."""

from __future__ import annotations

import re

import pytest

from chat import limits
from chat.api.schema import ONE_EVENT
from chat.models import Message
from tests.settings import BASE_DIR

PAGE = (BASE_DIR / "docs" / "reference" / "api.md").read_text()


def test_every_route_is_there() -> None:
    import chat.urls

    for pattern in chat.urls.urlpatterns:
        route = re.sub(r"<uuid:\w+>", "{id}", str(pattern.pattern))
        if route:
            assert f"/{route}`" in PAGE, route


@pytest.mark.parametrize("name", [*ONE_EVENT["properties"]["event"]["enum"], *Message.Status.values])  # type: ignore[index]
def test_every_event_and_status_is_there(name: str) -> None:
    assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize(
    "text",
    [
        f"up to {limits.LARGEST_PAGE}",
        f"every {limits.HEARTBEAT_SECONDS:g} seconds",
        f"every {limits.CHECKPOINT_SECONDS:g} seconds",
        f"touched for {limits.ABANDONED_SECONDS:g} seconds",
        f"tried for {limits.FINAL_SAVE_SECONDS:g} seconds",
        f"longer than {limits.MESSAGE_CHARACTERS:,} characters",
        f"longer than {limits.TITLE_CHARACTERS}",
        f"more than {limits.BODY_BYTES // 1024} KiB",
    ],
)
def test_every_limit_is_as_it_says(text: str) -> None:
    assert text in PAGE
