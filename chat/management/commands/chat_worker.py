"""`manage.py chat_worker`: runs the tasks of the queue, also after the database was away."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, InterfaceError, connections
from django.utils.crypto import get_random_string
from django_tasks_db.compat import DEFAULT_TASK_BACKEND_ALIAS, DEFAULT_TASK_QUEUE_NAME
from django_tasks_db.management.commands.db_worker import Worker

from chat import schedule
from chat.outages import note
from dbresilience import classify

logger = logging.getLogger("chat.worker")

LONGEST_PAUSE_SECONDS = 5.0


class Command(BaseCommand):
    help = "Runs background work: titles, retention, replies whose process died. Survives an unavailable database."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--interval", type=float, default=1.0, help="Seconds between looks at an empty queue.")
        parser.add_argument("--batch", action="store_true", help="Do what is to be done now, then end.")

    def handle(self, *, interval: float, batch: bool, **options: Any) -> None:
        worker = Worker(
            queue_names=[DEFAULT_TASK_QUEUE_NAME],
            interval=interval,
            batch=batch,
            backend_name=DEFAULT_TASK_BACKEND_ALIAS,
            startup_delay=False,
            max_tasks=None,
            worker_id=get_random_string(32),
            excluded_queue_names=[],
        )
        if threading.current_thread() is threading.main_thread():
            worker.configure_signals()
        if batch:
            schedule.enqueue_due()
        else:
            threading.Thread(target=_keep_schedule, name="chat-schedule", daemon=True).start()
        self.stdout.write("The worker waits for tasks.")
        _run(worker)


def _run(worker: Worker) -> None:
    """The library's loop ends at the first database error; begin it again when the database is back."""
    pause, away = 0.5, False
    while worker.running:
        try:
            schedule.take_back(worker_id=worker.worker_id)
            if away:
                logger.info("The database is back; the worker goes on")
            pause, away = 0.5, False
            worker.run()
            return
        except (DatabaseError, InterfaceError) as error:
            # A connection that broke is of no use, and the pause must not hold one.
            connections.close_all()
            verdict = classify(error)
            if verdict.status is None:
                raise
            if not away:
                logger.warning("The database is unavailable (%s); the worker waits for it", verdict.name)
            away = True
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _keep_schedule() -> None:
    while True:
        try:
            schedule.enqueue_due()
        except (DatabaseError, InterfaceError) as error:
            note(logger, error, "The schedule could not be kept; trying again in a minute")
        except Exception:
            logger.exception("The schedule stumbled")
        connections.close_all()
        time.sleep(schedule.LOOK_SECONDS)
