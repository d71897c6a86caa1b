"""Conversations for people who look after the site: to find and to read, and to delete a thread; never to edit."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.postgres.search import SearchQuery, SearchVector
from django.core.paginator import Paginator
from django.db import connections
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property
from django.utils.text import Truncator

from chat import services
from chat.models import SEARCH_CONFIG, Message, Thread, ToolCall


class EstimatingPaginator(Paginator):
    """Counting a large table exactly takes longer than showing a page of it; the server's statistics know enough."""

    EXACT_BELOW = 10_000

    @cached_property
    def count(self) -> int:
        query = self.object_list.query
        if query.where:
            return super().count
        with connections[self.object_list.db].cursor() as cursor:
            cursor.execute(
                "SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [query.get_meta().db_table]
            )
            estimate = int(cursor.fetchone()[0])
        return estimate if estimate >= self.EXACT_BELOW else super().count


class ReadingAdmin(admin.ModelAdmin):
    paginator = EstimatingPaginator
    show_full_result_count = False
    list_per_page = 50

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class PartAdmin(ReadingAdmin):
    """Parts of a thread go with it, never alone."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        page = request.resolver_match.url_name if request.resolver_match else ""
        return not page.startswith(f"chat_{self.opts.model_name}_") and super().has_delete_permission(request, obj)


class MessageInline(admin.TabularInline):
    model = Message
    fields = ["created_at", "role", "status", "excerpt"]
    readonly_fields = fields
    ordering = ["id"]
    extra = 0
    can_delete = False
    show_change_link = True
    max_num = 0
    verbose_name_plural = "The latest messages"
    LATEST = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        found = super().get_queryset(request)
        thread_id = request.resolver_match.kwargs.get("object_id") if request.resolver_match else None
        if thread_id is None:
            return found
        # A slice cannot be filtered by the formset that comes after.
        latest = Message.objects.filter(thread_id=thread_id).order_by("-pk").values("pk")[: self.LATEST]
        return found.filter(pk__in=latest)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="Content")
    def excerpt(self, message: Message) -> str:
        return Truncator(message.content).chars(200)


@admin.register(Thread)
class ThreadAdmin(ReadingAdmin):
    list_display = ["title", "owner", "updated_at", "created_at"]
    list_select_related = ["owner"]
    list_filter = ["updated_at"]
    search_fields = ["title", "owner__username"]
    search_help_text = "Title or user name"
    ordering = ["-updated_at"]
    inlines = [MessageInline]

    def delete_model(self, request: HttpRequest, obj: Thread) -> None:
        services.delete_threads(threads=Thread.objects.filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Thread]) -> None:
        services.delete_threads(threads=queryset)


@admin.register(Message)
class MessageAdmin(PartAdmin):
    list_display = ["excerpt", "role", "status", "thread", "owner", "created_at"]
    list_select_related = ["thread__owner"]
    list_filter = ["role", "status", "created_at"]
    search_fields = ["content"]
    search_help_text = "Words of the message; quotes for a phrase, a minus to exclude a word"
    ordering = ["-id"]
    fields = [
        "thread", "owner", "role", "status", "error", "content", "in_reply_to", "attempt", "created_at", "updated_at",
    ]  # fmt: skip
    readonly_fields = ["owner"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Message]:
        return super().get_queryset(request).select_related("thread__owner", "in_reply_to")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """By the full-text index; Django's own search would read the whole table."""
        if not search_term.strip():
            return queryset, False
        query = SearchQuery(search_term, config=SEARCH_CONFIG, search_type="websearch")
        return queryset.annotate(search=SearchVector("content", config=SEARCH_CONFIG)).filter(search=query), False

    @admin.display(description="Content")
    def excerpt(self, message: Message) -> str:
        return Truncator(message.content).chars(80) or "(nothing yet)"

    @admin.display(description="Owner", ordering="thread__owner__username")
    def owner(self, message: Message) -> str:
        return message.thread.owner.get_username()


@admin.register(ToolCall)
class ToolCallAdmin(PartAdmin):
    list_display = ["name", "status", "duration_seconds", "thread", "owner", "called_at"]
    list_select_related = ["reply__thread__owner"]
    list_filter = ["name", "status"]
    search_fields = ["name", "reply__thread__title", "reply__thread__owner__username"]
    search_help_text = "Tool, title of the thread, or user name"
    ordering = ["-id"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ToolCall]:
        return super().get_queryset(request).select_related("reply__thread__owner")

    @admin.display(ordering="reply__thread__title")
    def thread(self, call: ToolCall) -> str:
        return call.reply.thread.title

    @admin.display(ordering="reply__thread__owner__username")
    def owner(self, call: ToolCall) -> str:
        return call.reply.thread.owner.get_username()

    @admin.display(description="Called", ordering="reply__created_at")
    def called_at(self, call: ToolCall) -> Any:
        return call.reply.created_at
