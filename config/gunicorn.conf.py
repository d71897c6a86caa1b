"""gunicorn's settings: `gunicorn -c config/gunicorn.conf.py` serves the site, with threads or with an event loop.

What can be set is in `config.serving`.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

from config import serving
from config.logs import logging_config
from config.startup import var_folder

ASGI = serving.WORKER_CLASS == "asgi"

bind = f"{serving.HOST}:{serving.PORT}"
wsgi_app = "config.asgi:application" if ASGI else "config.wsgi:application"
worker_class = "uvicorn_worker.UvicornWorker" if ASGI else "gthread"
workers = serving.PROCESSES
threads = serving.THREADS
graceful_timeout = serving.GRACE_SECONDS
keepalive = 5
# Its socket would be shared by every site of this user.
control_socket_disable = True
reload = serving.DEBUG
accesslog = "-" if serving.DEBUG else None
access_log_format = "%(t)s %(m)s %(U)s %(s)s %(M)s ms"
if not serving.DEBUG:
    # In the same form as the site's own lines, for the same reader.
    logconfig_dict = logging_config(
        readable=False,
        loggers={
            "gunicorn.error": {"level": "INFO", "handlers": ["stderr"], "propagate": False},
            # With settings of its own gunicorn logs every request, whatever `accesslog` says.
            "gunicorn.access": {"level": "WARNING", "handlers": ["stderr"], "propagate": False},
        },
    )

# Several processes count into files of one folder, and prometheus_client looks for it when it is first imported.
METRICS_FOLDER = var_folder() / "metrics" / bind
COUNTS_TOGETHER = workers > 1 and not os.environ.get("PROMETHEUS_MULTIPROC_DIR")
if COUNTS_TOGETHER:
    try:
        METRICS_FOLDER.mkdir(parents=True, exist_ok=True)
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(METRICS_FOLDER)
    except OSError as error:
        print(f"Each process counts for itself, since {METRICS_FOLDER} cannot be made: {error}", file=sys.stderr)
        COUNTS_TOGETHER = False

# Replies that still run so long before the grace time ends are interrupted, so that what they have is saved.
SAVING_SECONDS = min(5.0, graceful_timeout / 3)


def when_ready(server: Any) -> None:
    """Begin to count at 0, now that the port is ours and nobody else's processes count there."""
    if COUNTS_TOGETHER:
        shutil.rmtree(METRICS_FOLDER, ignore_errors=True)
        METRICS_FOLDER.mkdir(parents=True, exist_ok=True)


def child_exit(server: Any, worker: Any) -> None:
    """Forget what a process had when it ended; what it counted stays."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client.multiprocess import mark_process_dead

        with suppress(OSError):
            mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]  # not typed


def interrupt_replies() -> None:
    # Where no reply was ever asked for, there is nothing to import it for.
    watch = sys.modules.get("chat.watch")
    if watch is not None:
        watch.interrupt_all()


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
