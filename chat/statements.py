"""The one statement that Django's ORM has no words for: a reply and its tool calls, stored together or not at all.

One statement is one round trip and its own transaction: whether the reply may still be written decides, under the
lock of its row, about the tool calls as well.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from django.core.serializers.json import DjangoJSONEncoder
from django.db import connections, router

from chat.models import Message, ToolCall

SAVE_WITH_TOOL_CALLS = """
WITH saved AS (
    UPDATE chat_message SET content = %s, status = %s, error = %s, updated_at = statement_timestamp()
    WHERE id = %s AND attempt = %s AND status = ANY (%s)
    RETURNING id
)
INSERT INTO chat_toolcall (id, reply_id, position, name, arguments, result, status, duration_seconds)
SELECT call.id, saved.id, call.position, call.name, call.arguments, call.result, call.status, call.duration_seconds
FROM saved, jsonb_to_recordset(%s::jsonb) AS call (
    id uuid, position smallint, name text, arguments jsonb, result jsonb, status text, duration_seconds float8
)
ON CONFLICT (id) DO UPDATE
SET result = excluded.result, status = excluded.status, duration_seconds = excluded.duration_seconds
"""
_OF_A_CALL = ("id", "position", "name", "arguments", "result", "status", "duration_seconds")


def save_with_tool_calls(
    *,
    reply: Message,
    content: str,
    status: str,
    error: str | None,
    from_statuses: Sequence[str],
    tool_calls: Sequence[ToolCall],
) -> bool:
    """Whether the reply was still this attempt's, in one of `from_statuses`. `tool_calls` holds at least one."""
    calls = [{name: getattr(call, name) for name in _OF_A_CALL} for call in tool_calls]
    with connections[router.db_for_write(Message)].cursor() as cursor:
        cursor.execute(
            SAVE_WITH_TOOL_CALLS,
            [
                content,
                str(status),
                error,
                reply.pk,
                reply.attempt,
                [str(name) for name in from_statuses],
                json.dumps(calls, cls=DjangoJSONEncoder),
            ],
        )
        return bool(cursor.rowcount)
