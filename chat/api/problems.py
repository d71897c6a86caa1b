"""Errors as RFC 9457 problem details. Database errors pass through: they are answered with 503 elsewhere."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse, JsonResponse
from rest_framework import exceptions
from rest_framework.views import set_rollback

CONTENT_TYPE = "application/problem+json"


class BodyTooLarge(exceptions.APIException):
    status_code = 413


class Conflict(exceptions.APIException):
    status_code = 409


class KeyReused(exceptions.APIException):
    status_code = 422
    default_detail = (
        "Idempotency-Key: this key came with another request before. "
        "Repeat that request unchanged, or use a new key for a new one."
    )


def problem(
    *,
    status: int,
    detail: str,
    title: str | None = None,
    errors: dict[str, list[str]] | None = None,
    retry_after: int | None = None,
    headers: dict[str, str] | None = None,
    more: dict[str, Any] | None = None,
) -> HttpResponse:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **(more or {}),
    }
    if errors is not None:
        body["errors"] = errors
    if retry_after is not None:
        body["retry_after"] = retry_after
    # A plain response and not one of REST framework's: an error is told as a problem whatever was asked for.
    response = JsonResponse(body, status=status, content_type=CONTENT_TYPE)
    if retry_after is not None:
        response["Retry-After"] = str(retry_after)
    for name, value in (headers or {}).items():
        response[name] = value
    return response


def problem_for(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """REST framework's exception handler; None lets the error travel on."""
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        return None
    set_rollback()
    headers = {"WWW-Authenticate": header} if (header := getattr(error, "auth_header", None)) else {}
    retry_after = math.ceil(wait) if (wait := getattr(error, "wait", None)) is not None else None
    if isinstance(error, exceptions.ValidationError):
        errors = _by_field(error.detail)
        detail = " ".join(_sentence(field, text) for field, texts in errors.items() for text in texts)
        return problem(status=error.status_code, detail=detail, errors=errors)
    if isinstance(error, exceptions.UnsupportedMediaType):
        detail = "Content-Type: send JSON, with Content-Type: application/json."
    elif isinstance(error, exceptions.NotAcceptable):
        types = [renderer.media_type for renderer in context["view"].renderer_classes]
        detail = f"Accept: this can be had as {' or '.join(types)}."
    elif isinstance(error, exceptions.Throttled):
        detail = f"Too many requests. Try again in {retry_after} seconds." if retry_after else "Too many requests."
    else:
        detail = str(error.detail)
    return problem(status=error.status_code, detail=detail, retry_after=retry_after, headers=headers)


def _by_field(detail: Any, field: str = "") -> dict[str, list[str]]:
    """One flat list of texts for each field, however REST framework nested them."""
    found: dict[str, list[str]] = {}
    if isinstance(detail, dict):
        for name, inner in detail.items():
            path = f"{field}.{name}" if field else str(name)
            for key, texts in _by_field(inner, "" if name == "non_field_errors" else path).items():
                found.setdefault(key, []).extend(texts)
    elif isinstance(detail, list):
        for inner in detail:
            for key, texts in _by_field(inner, field).items():
                found.setdefault(key, []).extend(texts)
    else:
        found[field or "request"] = [str(detail)]
    return found


def _sentence(field: str, text: str) -> str:
    return text if field == "request" or text.startswith(f"{field}:") else f"{field}: {text}"
