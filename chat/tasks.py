"""Work for the worker: titles of new threads, deletion of old ones."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.core.management import call_command

from chat import queries, services
from chat.agents import AgentError, get_agent
from chat.models import Thread

try:
    from django.tasks import task  # Django 6.0 and later
except ImportError:
    from django_tasks import task


@task()
def title_thread(thread_id: str) -> str | None:
    """Name a thread by its first message; returns the title, or None if it needs none."""
    message = queries.first_message(UUID(thread_id))
    if message is None:
        return None
    provisional = services.provisional_title(message.content)
    if message.thread.title != provisional:
        return None
    try:
        title = " ".join(get_agent().title(message=message.content).split())
    except AgentError:
        return None
    if not title or not services.title_thread(thread_id=UUID(thread_id), provisional=provisional, title=title):
        return None
    return title


def ask_for_title(thread: Thread) -> None:
    """In the transaction that asks the assistant, so that it neither costs anything nor is forgotten."""
    title_thread.enqueue(str(thread.pk))


@task()
def housekeeping() -> dict[str, int]:
    """Once a day: apply CHAT_RETENTION_DAYS (without it no thread is ever deleted) and forget old task results."""
    days = settings.CHAT_RETENTION_DAYS
    deleted = services.delete_threads_untouched_for(days=days) if days else 0
    call_command("prune_db_task_results", verbosity=0)
    return {"threads_deleted": deleted}
