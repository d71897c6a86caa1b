"""Work for the worker: titles of new threads, deletion of old ones, replies whose process died."""

from __future__ import annotations

from uuid import UUID

from django.conf import settings

from chat import queries, services
from chat.agents import AgentError, get_agent

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


@task()
def delete_old_threads() -> int:
    """Apply CHAT_RETENTION_DAYS; without it nothing is ever deleted."""
    if not settings.CHAT_RETENTION_DAYS:
        return 0
    return services.delete_threads_untouched_for(days=settings.CHAT_RETENTION_DAYS)


@task()
def settle_abandoned_replies() -> int:
    """Mark replies whose process is gone as interrupted."""
    return services.settle_abandoned()
