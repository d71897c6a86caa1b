"""What the worker does by the clock. The queue itself is the memory, so that several workers do it once."""

from __future__ import annotations

from datetime import timedelta

from django.db import connection, transaction
from django.utils import timezone
from django_tasks_db.compat import TaskResultStatus
from django_tasks_db.models import DBTaskResult

from chat import services, tasks

LOOK_SECONDS = 60.0
HOUSEKEEPING_EVERY = timedelta(days=1)
# Any number will do as long as nothing else of this database uses it for an advisory lock.
SCHEDULE_LOCK = 6_347_201


def enqueue_due() -> int:
    """Settle abandoned replies, and once a day ask for housekeeping; returns how many tasks were enqueued."""
    services.settle_abandoned()
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SCHEDULE_LOCK])
            if not cursor.fetchone()[0]:
                return 0
        since = timezone.now() - HOUSEKEEPING_EVERY
        path = tasks.housekeeping.module_path
        if DBTaskResult.objects.filter(task_path=path, enqueued_at__gt=since).exists():
            return 0
        tasks.housekeeping.enqueue()
        return 1


def take_back(*, worker_id: str) -> int:
    """Put back what this worker was doing when the database went away; every task may run twice."""
    return DBTaskResult.objects.filter(status=TaskResultStatus.RUNNING, worker_ids__contains=worker_id).update(
        status=TaskResultStatus.READY
    )
