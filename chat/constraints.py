"""Which rule of the database a write has broken: what would have to be looked up beforehand, and still be too late."""

from __future__ import annotations

import psycopg
from django.db import IntegrityError


def broken_by(error: IntegrityError) -> str:
    """The name of the constraint; empty if the server gave none."""
    cause = error.__cause__
    return (cause.diag.constraint_name or "") if isinstance(cause, psycopg.Error) else ""


def is_repeated_key(error: IntegrityError) -> bool:
    return broken_by(error) == "chat_message_once_per_key"


def is_thread_gone(error: IntegrityError) -> bool:
    # Django gives the constraint of a foreign key this name, and some more.
    return broken_by(error).startswith("chat_message_thread_id_")


def is_stored_already(error: IntegrityError) -> bool:
    """Primary keys are made by whoever stores it, so it can only have been them."""
    return broken_by(error) in ("chat_thread_pkey", "chat_message_pkey")
