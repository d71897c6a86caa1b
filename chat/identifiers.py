"""Primary keys made by the client: UUIDv7, rising in time, so that an INSERT needs no answer from the server."""

from __future__ import annotations

import uuid

if hasattr(uuid, "uuid7"):  # Python 3.14
    new_id = uuid.uuid7
else:
    from uuid_utils.compat import uuid7

    def new_id() -> uuid.UUID:
        return uuid7()


__all__ = ["new_id"]
