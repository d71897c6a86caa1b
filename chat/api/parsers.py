"""Reading a request's body: JSON, an object, not larger than it may be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import IO, Any

from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from chat.api.problems import BodyTooLarge
from chat.limits import BODY_BYTES


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class LimitedJSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self, stream: IO[bytes], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            # One byte more than allowed tells enough; a length the client claims tells nothing.
            body = stream.read(BODY_BYTES + 1)
        except UnreadablePostError as error:
            raise ParseError("The body ended before it was complete.") from error
        if len(body) > BODY_BYTES:
            raise BodyTooLarge(f"The body is larger than {BODY_BYTES // 1024} KiB; send less.")
        try:
            value = json.loads(body.decode(), parse_constant=_no_constant)
        except UnicodeDecodeError as error:
            raise ParseError("The body is not UTF-8.") from error
        # Deeply nested brackets exhaust the parser's stack.
        except (ValueError, RecursionError) as error:
            raise ParseError(f"The body is not JSON: {str(error)[:200]}.") from error
        if not isinstance(value, dict):
            raise ParseError('The body must be a JSON object, such as {"message": "Hello"}.')
        return value
