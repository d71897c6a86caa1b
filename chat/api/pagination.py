"""Pages by cursor: the next page is found by where the last one ended, so that new rows shift nothing."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from chat.limits import LARGEST_PAGE, MESSAGES_PER_PAGE, THREADS_PER_PAGE


class Pages(CursorPagination):
    page_size_query_param = "page_size"
    max_page_size = LARGEST_PAGE
    invalid_cursor_message = "cursor: it is not one of ours; start again without it."

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view)
        # A forged cursor may hold anything where a time or an id should be.
        except (ValidationError, ValueError, OverflowError) as error:
            raise NotFound(self.invalid_cursor_message) from error


class ThreadPages(Pages):
    page_size = THREADS_PER_PAGE
    ordering = ("-updated_at", "-id")


class MessagePages(Pages):
    page_size = MESSAGES_PER_PAGE
    ordering = ("id",)
