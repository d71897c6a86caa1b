"""A server that speaks the protocol of OpenAI's chat completions, and fails in every way that real ones do.

`with OpenAIServer() as server: server.answers(Text("Hello"), Pause(1), Text("!"))` scripts the next request; each call
of `answers` scripts one more. What was asked is in `server.requests`; `server.hangups` counts clients that left early.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Tool:
    """A tool call, its arguments in several pieces as real servers send them."""

    name: str
    arguments: str
    id: str = "call_abc"


@dataclass(frozen=True)
class Pause:
    seconds: float


@dataclass(frozen=True)
class Break:
    """The connection is cut, without an end."""


@dataclass(frozen=True)
class Raw:
    data: str


@dataclass(frozen=True)
class Refusal:
    """An answer that is not a stream."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


class OpenAIServer:
    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.hangups = 0
        self._scripts: deque[tuple[Any, ...]] = deque()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                server._serve(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self._httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._httpd.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._httpd.server_port}/v1"

    def __enter__(self) -> OpenAIServer:
        threading.Thread(target=self._httpd.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._httpd.shutdown()
        self._httpd.server_close()

    def answers(self, *script: Any) -> None:
        self._scripts.append(script)

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        self.requests.append(json.loads(body) | {"authorization": handler.headers["Authorization"]})
        script = self._scripts.popleft() if self._scripts else (Text("Hello!"),)
        handler.close_connection = True
        try:
            self._play(handler, script)
        except OSError:
            self.hangups += 1

    def _play(self, handler: BaseHTTPRequestHandler, script: tuple[Any, ...]) -> None:
        first = script[0]
        if isinstance(first, Refusal):
            handler.send_response(first.status)
            for name, value in {"Content-Type": "application/json", "Content-Length": "32", **first.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(b'{"error":{"message":"no, sorry"}}'[:32])
            return
        if isinstance(first, Pause):
            # Real models think before they send a header.
            self._sleep(handler, first.seconds)
            script = script[1:]
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        reason, tools = "stop", 0
        for item in script:
            match item:
                case Pause(seconds):
                    self._sleep(handler, seconds)
                case Break():
                    handler.connection.shutdown(socket.SHUT_RDWR)
                    return
                case Raw(data):
                    self._write(handler, data)
                case Text(text):
                    self._delta(handler, {"content": text})
                case Tool(name, arguments, id):
                    reason, index, tools = "tool_calls", tools, tools + 1
                    call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}
                    self._delta(handler, {"tool_calls": [call]})
                    middle = len(arguments) // 2
                    for piece in (arguments[:middle], arguments[middle:]):
                        self._delta(handler, {"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        self._delta(handler, {}, reason)
        self._write(handler, "[DONE]")
        handler.wfile.write(b"0\r\n\r\n")

    def _delta(self, handler: BaseHTTPRequestHandler, delta: dict[str, Any], reason: str | None = None) -> None:
        chunk = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "test",
            "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
        }
        self._write(handler, json.dumps(chunk))

    def _write(self, handler: BaseHTTPRequestHandler, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        handler.wfile.flush()

    def _sleep(self, handler: BaseHTTPRequestHandler, seconds: float) -> None:
        """Wait; a client that closes its side in the meantime has hung up."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            readable, _, _ = select.select([handler.connection], [], [], left)
            if readable and not handler.connection.recv(1, socket.MSG_PEEK):
                raise ConnectionAbortedError("The client hung up")
