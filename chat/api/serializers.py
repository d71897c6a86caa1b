"""What goes in and out: exactly the fields named here, of exactly these kinds."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from rest_framework import serializers

from chat.limits import MESSAGE_CHARACTERS, TITLE_CHARACTERS
from chat.models import Message, Thread, ToolCall
from chat.storable import in_order


class Text(serializers.CharField):
    """Text as it was typed: numbers are not taken for text, and only blanks are nothing."""

    default_error_messages = {
        "max_length": "Use at most {max_length:,} characters.",
        "blank": "Write something.",
        "required": "This field is missing; send it.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        text = super().to_internal_value(data)
        if not text.strip():
            self.fail("blank")
        return text


class StrictUUID(serializers.UUIDField):
    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class Request(serializers.Serializer):
    """Fields with other names are refused."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(self.initial_data) - set(self.fields))
        if unknown:
            known = ", ".join(self.fields)
            raise serializers.ValidationError({name: [f"There is no such field; use {known}."] for name in unknown})
        return attrs


class ChatRequest(Request):
    message = Text(max_length=MESSAGE_CHARACTERS)
    thread = StrictUUID(required=False, allow_null=True, help_text="Left out, a new thread begins.")


class NewThreadRequest(Request):
    title = Text(max_length=TITLE_CHARACTERS, required=False)


class RenameRequest(Request):
    title = Text(max_length=TITLE_CHARACTERS)


class TokenRequest(Request):
    username = Text(max_length=150)
    password = Text(max_length=1000, style={"input_type": "password"})


class TokenAnswer(serializers.Serializer):
    token = serializers.CharField()


class ThreadOut(serializers.ModelSerializer):
    class Meta:
        model = Thread
        fields = ["id", "title", "created_at", "updated_at"]
        read_only_fields = fields


class InOrder(serializers.Field):
    """In the order in which `chat.answers` tells it."""

    def to_representation(self, value: Any) -> Any:
        return in_order(super().to_representation(value))


class Arguments(InOrder, serializers.DictField):
    pass


class Result(InOrder, serializers.JSONField):
    pass


class ToolCallOut(serializers.ModelSerializer):
    arguments = Arguments(read_only=True)
    result = Result(read_only=True, allow_null=True)

    class Meta:
        model = ToolCall
        fields = ["id", "name", "arguments", "result", "status", "duration_seconds"]
        read_only_fields = fields


class MessageOut(serializers.ModelSerializer):
    in_reply_to = serializers.UUIDField(source="in_reply_to_id", read_only=True, allow_null=True)
    tool_calls = ToolCallOut(many=True, read_only=True)

    class Meta:
        model = Message
        fields = ["id", "role", "content", "status", "error", "in_reply_to", "created_at", "tool_calls"]
        read_only_fields = fields


class ThreadOfAnswer(serializers.ModelSerializer):
    class Meta:
        model = Thread
        fields = ["id", "title"]


class QuestionOfAnswer(serializers.ModelSerializer):
    class Meta:
        model = Message
        fields = ["id", "role", "content"]


class ReplyOfAnswer(serializers.ModelSerializer):
    tool_calls = ToolCallOut(many=True)
    error = serializers.CharField(required=False, help_text="Only when the reply failed: why.")

    class Meta:
        model = Message
        fields = ["id", "content", "status", "tool_calls", "error"]


class Answer(serializers.Serializer):
    """A turn that has ended; made by `chat.answers.answer`."""

    thread = ThreadOfAnswer()
    message = QuestionOfAnswer()
    reply = ReplyOfAnswer()


class Place(serializers.Serializer):
    id = serializers.UUIDField()


class Problem(serializers.Serializer):
    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField()
    errors = serializers.DictField(child=serializers.ListField(child=serializers.CharField()), required=False)
    retry_after = serializers.IntegerField(required=False)
    outcome_unknown = serializers.BooleanField(
        required=False, help_text="True if the database was lost while it stored this: it may be there, or not."
    )
    thread = Place(required=False, help_text="Of a turn whose end could not be told: where its message is stored.")
    message = Place(required=False, help_text="Likewise: the message.")
    reply = Place(required=False, help_text="Likewise: the reply, for the retry.")
