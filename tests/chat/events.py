"""Reading server-sent events as a client does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

STREAM = "text/event-stream"


def events(chunks: Iterable[bytes]) -> Iterator[tuple[str, Any]]:
    """(name, data) of each event; heartbeats are passed over."""
    buffer = ""
    for chunk in chunks:
        buffer += chunk.decode()
        while "\n\n" in buffer:
            block, buffer = buffer.split("\n\n", 1)
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            if fields:
                yield fields["event"], json.loads(fields["data"])
