"""gunicorn's settings: `gunicorn -c config/gunicorn.conf.py` serves the site, with threads or with an event loop.

PORT, WEB_CONCURRENCY (processes), WEB_THREADS, WEB_WORKER_CLASS (`gthread` or `asgi`), WEB_GRACE_SECONDS.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

DEBUG = os.environ.get("DEBUG", "").lower() in {"1", "true", "yes", "on", "y", "t"}
ASGI = os.environ.get("WEB_WORKER_CLASS", "gthread") == "asgi"
if os.environ.get("WEB_WORKER_CLASS", "gthread") not in {"gthread", "asgi"}:
    sys.exit(f"WEB_WORKER_CLASS is {os.environ['WEB_WORKER_CLASS']!r}: it must be 'gthread' or 'asgi'.")

bind = f"{os.environ.get('HOST', '127.0.0.1' if DEBUG else '0.0.0.0')}:{os.environ.get('PORT', '8000')}"
wsgi_app = "config.asgi:application" if ASGI else "config.wsgi:application"
worker_class = "uvicorn_worker.UvicornWorker" if ASGI else "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "1" if DEBUG else "2"))
# A streamed reply holds its thread, not a connection: threads may well outnumber the pool.
threads = int(os.environ.get("WEB_THREADS", "32"))
graceful_timeout = int(os.environ.get("WEB_GRACE_SECONDS", "30"))
keepalive = 5
# Its socket would be shared by every site of this user.
control_socket_disable = True
reload = DEBUG
accesslog = "-" if DEBUG else None
access_log_format = "%(t)s %(m)s %(U)s %(s)s %(M)s ms"

# Replies that still run so long before the grace time ends are interrupted, so that what they have is saved.
SAVING_SECONDS = min(5.0, graceful_timeout / 3)


def interrupt_replies() -> None:
    turns = sys.modules.get("chat.turns")
    if turns is not None:
        turns.interrupt_all()


def post_worker_init(worker: Any) -> None:
    """Let running replies end, but stop them in time to save what they have."""
    if not ASGI:
        interrupt_in_time()
        return
    # uvicorn raises the signal again when it is done; the default action would skip every exit handler.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    # What it would do to requests that do not end is cancel them, with a traceback for each: only if all else failed.
    worker.config.timeout_graceful_shutdown = max(1, int(graceful_timeout - SAVING_SECONDS / 3))
    # It installs its own handler when it begins to serve, and tells us so in the same thread.
    notify = worker.config.callback_notify

    async def serving() -> None:
        worker.config.callback_notify = notify
        interrupt_in_time()
        await notify()

    worker.config.callback_notify = serving


def interrupt_in_time() -> None:
    """On SIGTERM do what would be done anyway, and set a clock for the replies."""
    stop_accepting = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        timer = threading.Timer(graceful_timeout - SAVING_SECONDS, interrupt_replies)
        timer.daemon = True
        timer.start()
        if callable(stop_accepting):
            stop_accepting(number, frame)

    signal.signal(signal.SIGTERM, stop)
    signal.siginterrupt(signal.SIGTERM, False)


def worker_int(worker: Any) -> None:
    """A quick stop, or a reload in development: save what the replies have."""
    interrupt_replies()


def worker_exit(server: Any, worker: Any) -> None:
    with suppress(Exception):
        interrupt_replies()
