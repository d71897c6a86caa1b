"""What the OpenAPI schema says about every endpoint besides its own answer: the problems it may answer with."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse

from chat.api.serializers import Problem

MEANINGS = {
    400: "The request cannot be understood; `detail` names the field and what to do.",
    401: "No token and no session.",
    403: "The session's request has no CSRF token.",
    404: "There is no such thing of yours.",
    406: "It cannot be had in the form that Accept names.",
    409: "The reply is complete, or is being written.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The idempotency key came with another request before.",
    429: "Too many requests; try again after `Retry-After` seconds.",
    503: (
        "The database is unavailable; try again after `Retry-After` seconds. With `outcome_unknown` something may have "
        "been stored, or has been: repeat it with its Idempotency-Key, or look first."
    ),
    504: "The database took too long to answer; try again after `Retry-After` seconds.",
}
# For views whose way of finding out who asks is a class of ours.
TOKEN_OR_SESSION: list[dict[str, list[str]]] = [{"tokenAuth": []}, {"cookieAuth": []}]
ALWAYS = (401, 403, 404, 406, 503, 504)

IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    OpenApiTypes.UUID,
    OpenApiParameter.HEADER,
    description="Makes the request repeatable: sent again with the same key it stores nothing and asks no model.",
)
EVENTS = (
    "The same as server-sent events: `turn`, then `delta`, `tool_call` and `tool_result` as they happen, "
    "and at the end `done` with the JSON answer, or `error` with `status` and `retry_after`."
)
# What of a stream can be described: each event on its own.
ONE_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["turn", "delta", "tool_call", "tool_result", "done", "error"]},
        "data": {"type": "string", "description": "A JSON object."},
    },
    "required": ["event", "data"],
}


def problems(*statuses: int) -> dict[Any, OpenApiResponse]:
    return {
        (status, "application/problem+json"): OpenApiResponse(Problem, description=MEANINGS[status])
        for status in sorted({*ALWAYS, *statuses})
    }


def turn_responses(answer: Any, *statuses: int) -> dict[Any, Any]:
    return {
        (200, "application/json"): answer,
        (200, "text/event-stream"): OpenApiResponse(ONE_EVENT, description=EVENTS),
        **problems(*statuses),
    }
