"""PostgreSQL's messages in a stream of bytes: where one ends, what it is called (manual, "Message Formats")."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

UNTYPED = {
    80877102: "CancelRequest",
    80877103: "SSLRequest",
    80877104: "GSSENCRequest",
}
FRONTEND = {
    "B": "Bind",
    "C": "Close",
    "D": "Describe",
    "E": "Execute",
    "F": "FunctionCall",
    "H": "Flush",
    "P": "Parse",
    "Q": "Query",
    "S": "Sync",
    "X": "Terminate",
    "c": "CopyDone",
    "d": "CopyData",
    "f": "CopyFail",
    "p": "Password",
}
# The server acts on the rest only when a Sync follows.
INCOMPLETE = {"Bind", "Close", "Describe", "Execute", "Flush", "Parse", "CopyDone", "CopyData", "CopyFail"}
ENDS_WITH_READY = {"Query", "Sync", "FunctionCall", "StartupMessage"}
READY = "ReadyForQuery"


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a client or a server; `data` is all of it, as it travels."""

    kind: str
    data: bytes
    connection: int = 0

    @property
    def sql(self) -> str:
        """The text of a Query or Parse; empty for any other message."""
        if self.kind == "Query":
            return self.data[5:-1].decode()
        if self.kind == "Parse":
            return self.data[5:].split(b"\0")[1].decode()
        return ""

    @property
    def completes_a_request(self) -> bool:
        return self.kind not in INCOMPLETE


def is_commit(message: Message) -> bool:
    return message.sql.strip().rstrip(";").upper() == "COMMIT"


def error_response(sqlstate: str, text: str) -> bytes:
    """The FATAL error with which a server ends a connection."""
    fields = {"S": "FATAL", "V": "FATAL", "C": sqlstate, "M": text, "F": "backend_startup.c", "L": "1", "R": "deny"}
    body = b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


class Frontend:
    """Cuts what a client sends into messages."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._rest = b""
        self._typed = False
        self.opaque = False
        """Encrypted: nothing can be told apart any more."""

    def feed(self, data: bytes) -> Iterator[Message]:
        if self.opaque:
            yield Message("Opaque", data, self._connection)
            return
        self._rest += data
        while message := self._next():
            self._rest = self._rest[len(message.data) :]
            yield message

    def _next(self) -> Message | None:
        header = 1 if self._typed else 0
        if len(self._rest) < header + (4 if self._typed else 8):
            return None
        end = header + struct.unpack_from("!i", self._rest, header)[0]
        if len(self._rest) < end:
            return None
        if self._typed:
            kind = FRONTEND.get(chr(self._rest[0]), "Unknown")
        else:
            kind = UNTYPED.get(struct.unpack_from("!i", self._rest, 4)[0], "StartupMessage")
            self._typed = kind == "StartupMessage"
        return Message(kind, self._rest[:end], self._connection)


class Backend:
    """Cuts what a server sends into messages."""

    def __init__(self, connection: int) -> None:
        self._connection = connection
        self._rest = b""
        self.answers_with_a_byte = False
        """The client asked for encryption; the answer is one byte."""
        self.opaque = False

    def feed(self, data: bytes) -> Iterator[Message]:
        if self.opaque:
            yield Message("Opaque", data, self._connection)
            return
        if self.answers_with_a_byte and data:
            self.answers_with_a_byte = False
            self.opaque = data[:1] in b"SG"
            yield Message("Encryption", data[:1], self._connection)
            data = data[1:]
        self._rest += data
        while len(self._rest) >= 5:
            end = 1 + struct.unpack_from("!i", self._rest, 1)[0]
            if len(self._rest) < end:
                return
            whole, self._rest = self._rest[:end], self._rest[end:]
            kind = {ord("Z"): READY, ord("E"): "ErrorResponse"}.get(whole[0], chr(whole[0]))
            yield Message(kind, whole, self._connection)
