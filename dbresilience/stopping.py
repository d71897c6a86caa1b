"""How a process ends: requests that run may finish, statements that still run are cancelled, every session is closed.

Application servers let requests finish by themselves, before anything of this. Django's `runserver` does not: it ends
in the middle of them, at every save.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import select
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any

import psycopg
from django.core.signals import request_finished, request_started
from django.utils import autoreload
from psycopg import capabilities
from psycopg.pq import ConnStatus, TransactionStatus

from .wrapping import wrap_once

if TYPE_CHECKING:
    from .pool import Pool

FINISH_SECONDS = 1.0
"""How long a save waits for requests that run; longer ones, such as streams, are broken off."""
CANCEL_SECONDS = 0.5
"""Longest time for cancelling all that runs when the process ends."""
_LOOK_SECONDS = 0.01
_SO_ATTACH_FILTER = 26
_ARRIVAL_SECONDS = 0.2

logger = logging.getLogger("dbresilience.connections")


class _Running:
    """Requests that `runserver` is answering."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def began(self, **kwargs: Any) -> None:
        with self._lock:
            self.count += 1

    def ended(self, **kwargs: Any) -> None:
        with self._lock:
            self.count -= 1


_running = _Running()


def install() -> None:
    """Under `runserver`, let requests that run finish before the process makes room for its successor."""
    if os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) != "true":
        return
    request_started.connect(_running.began, dispatch_uid="dbresilience.stopping")
    request_finished.connect(_running.ended, dispatch_uid="dbresilience.stopping")
    wrap_once(autoreload, "trigger_reload", _finishing_first)


def _finishing_first(trigger_reload: Callable[[Any], None]) -> Callable[[Any], None]:
    def trigger(filename: Any) -> None:
        # Before the interpreter ends: from Python 3.12 on no thread can begin then, not even that of a request.
        try:
            finish_requests()
        except Exception:
            logger.exception("Requests could not be waited for")
        trigger_reload(filename)

    return trigger


def finish_requests(seconds: float = FINISH_SECONDS) -> None:
    """Take no more requests on `runserver`'s socket, and wait up to `seconds` for those that it has taken."""
    servers = _development_servers()
    if not servers:
        return
    began = monotonic()
    # In a thread, since a server without threads is busy with the request that it answers.
    closing = threading.Thread(target=_close_all_to_new, args=[servers], name="dbresilience-closing", daemon=True)
    closing.start()
    closing.join(seconds)
    while _is_at_work(monotonic() - began) and monotonic() - began < seconds:
        sleep(_LOOK_SECONDS)


def _close_all_to_new(servers: list[Any]) -> None:
    for server in servers:
        with suppress(OSError):
            _close_to_new(server)


def _is_at_work(seconds: float) -> bool:
    """Whether a request runs, or, in the first moment, a thread that may be about to begin with one."""
    if _running.count > 0:
        return True
    threads = [each for each in threading.enumerate() if "process_request_thread" in each.name]
    return bool(threads) and seconds < _ARRIVAL_SECONDS  # later they wait for a browser that keeps its connection


def _development_servers() -> list[Any]:
    basehttp = sys.modules.get("django.core.servers.basehttp")
    if basehttp is None:
        return []
    # Django has it in a local variable only; isinstance() would ask lazy objects what they are, and so make them.
    found = [each for each in gc.get_objects() if issubclass(type(each), basehttp.WSGIServer)]
    return [server for server in found if server.socket.fileno() != -1]


def _close_to_new(server: Any) -> None:
    """Answer who has connected already, and let everybody else be refused."""
    # Who has connected and is not taken when a socket is closed is cut off, so from here on nobody connects.
    _let_nobody_in(server.socket)
    # Else it could wait for ever for one who is gone again.
    server.socket.setblocking(False)
    server.shutdown()  # it looks twice a second whether it should end
    while select.select([server], [], [], 0)[0]:
        server.handle_request()
    server.server_close()


def _let_nobody_in(listening: socket.socket) -> None:
    """Let the kernel drop what arrives, which is sent again after a second, and refused when the socket is closed."""
    if sys.platform != "linux":
        return
    # One instruction of a packet filter, "return 0" (socket(7), SO_ATTACH_FILTER).
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    with suppress(OSError):
        listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def cancel_statements(pools: Iterable[Pool], seconds: float = CANCEL_SECONDS) -> None:
    """Cancel what threads that end with the process have asked for, else the server would go on with it."""
    if not capabilities.has_cancel_safe():
        return  # the other way could hang; `client_check_seconds` does it, later
    until = monotonic() + seconds
    for pool in pools:
        for lease in list(pool.leases):
            connection = lease.connection
            pgconn = connection.pgconn
            left = until - monotonic()
            if left <= 0:
                return
            if pgconn.status != ConnStatus.OK or pgconn.transaction_status != TransactionStatus.ACTIVE:
                continue
            with suppress(psycopg.Error):
                connection.cancel_safe(timeout=left)
