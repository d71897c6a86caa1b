"""The worker: does what is in the queue, keeps the clock, and survives the database's absence."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone
from django_tasks_db.compat import TaskResultStatus
from django_tasks_db.models import DBTaskResult
from rest_framework.test import APIClient

from chat import schedule, services, tasks
from chat.models import Message, Thread
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import site_environment


@pytest.mark.django_db(transaction=True)
def test_a_first_turn_asks_for_a_title_and_the_worker_gives_it(api: APIClient) -> None:
    question = "please tell me everything about the invoices that I have sent to Lisbon in March"
    told = api.post("/api/chat", {"message": question}).json()
    wait_until(lambda: DBTaskResult.objects.filter(task_path=tasks.title_thread.module_path).exists())
    assert Thread.objects.get().title == told["thread"]["title"] != ""
    call_command("chat_worker", "--batch", "--interval", "0")
    assert Thread.objects.get().title == "Tell me everything about the invoices that I…"
    assert not DBTaskResult.objects.exclude(status=TaskResultStatus.SUCCESSFUL).exists()


@pytest.mark.django_db
def test_retention_is_off_unless_set(alice: Any, settings: Any) -> None:
    Thread.objects.create(owner=alice, title="Old")
    Thread.objects.update(updated_at=timezone.now() - timedelta(days=4000))
    settings.CHAT_RETENTION_DAYS = None
    assert tasks.housekeeping.call() == {"threads_deleted": 0}
    assert Thread.objects.count() == 1


@pytest.mark.django_db
def test_retention_deletes_what_nobody_has_touched(alice: Any, settings: Any) -> None:
    old = [Thread.objects.create(owner=alice, title="Old") for _ in range(5)]
    for thread in old:
        Message.objects.create(thread=thread, role="user", content="Hello", author=alice)
    Thread.objects.update(updated_at=timezone.now() - timedelta(days=31))
    Thread.objects.create(owner=alice, title="New")
    settings.CHAT_RETENTION_DAYS = 30
    assert tasks.housekeeping.call() == {"threads_deleted": 5}
    assert [thread.title for thread in Thread.objects.all()] == ["New"]
    assert not Message.objects.exists()


@pytest.mark.django_db
def test_retention_goes_in_batches(alice: Any) -> None:
    Thread.objects.bulk_create(Thread(owner=alice, title="Old") for _ in range(25))
    Thread.objects.update(updated_at=timezone.now() - timedelta(days=31))
    assert services.delete_threads_untouched_for(days=30, batch=10) == 25


@pytest.mark.django_db
def test_housekeeping_is_asked_for_once_a_day_by_however_many_workers() -> None:
    assert [schedule.enqueue_due() for _ in range(3)] == [1, 0, 0]
    DBTaskResult.objects.update(enqueued_at=timezone.now() - timedelta(days=1, minutes=1))
    assert [schedule.enqueue_due() for _ in range(3)] == [1, 0, 0]


@pytest.mark.django_db
def test_replies_whose_process_died_are_settled_by_the_clock(alice: Any) -> None:
    thread = Thread.objects.create(owner=alice, title="A thread")
    replies = []
    for _ in range(2):
        question = Message.objects.create(thread=thread, role="user", content="?", author=alice)
        replies.append(
            Message.objects.create(thread=thread, role="assistant", status="streaming", in_reply_to=question)
        )
    Message.objects.filter(pk=replies[0].pk).update(updated_at=timezone.now() - timedelta(seconds=31))
    schedule.enqueue_due()
    assert [Message.objects.get(pk=reply.pk).status for reply in replies] == ["interrupted", "streaming"]


@pytest.mark.django_db
def test_what_a_worker_was_doing_when_the_database_went_away_is_put_back() -> None:
    for worker in ("mine", "other"):
        tasks.housekeeping.enqueue()
        DBTaskResult.objects.filter(status=TaskResultStatus.READY).get().claim(worker)
    assert schedule.take_back(worker_id="mine") == 1
    assert DBTaskResult.objects.get(status=TaskResultStatus.READY).worker_ids == ["mine"]


@pytest.fixture
def start_worker(database_url: str) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "manage.py", "chat_worker", "--interval", "0.1"],
                cwd=BASE_DIR,
                env=site_environment(DATABASE_URL=database_url),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.mark.slow
def test_it_survives_the_databases_absence_and_ends_when_told(
    start_worker: Callable[[], subprocess.Popen[str]], database_url: str, postgres: ThrowawayPostgres
) -> None:
    database = database_url.rsplit("/", 1)[1].split("?")[0]
    table = DBTaskResult._meta.db_table

    def finished() -> int:
        query = f"SELECT count(*) FROM {table} WHERE status = 'SUCCESSFUL'"
        return int(str(postgres.execute(query, database=database)[0][0]))

    worker = start_worker()
    wait_until(lambda: finished() == 1, timeout_seconds=20, what="the first housekeeping")
    postgres.stop()
    assert worker.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        worker.wait(2)
    postgres.start()
    again = f"UPDATE {table} SET status = 'READY', worker_ids = '[]'"
    postgres.execute(again, database=database)
    wait_until(lambda: finished() == 1, timeout_seconds=20, what="the second housekeeping")
    worker.send_signal(signal.SIGTERM)
    output, _ = worker.communicate(timeout=5)
    assert worker.returncode == 0
    assert output.count("The database is unavailable") == 1
    assert "The database is back" in output
    assert "Traceback" not in output
