"""Kinds of use of a connection, for tests of what is put down of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group
from django.db import DatabaseError, transaction

from dbresilience import gather, pinned, pipeline
from dbresilience.base import DatabaseWrapper

from .conftest import run

Use = Callable[[DatabaseWrapper], object]


def in_transaction(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT 1")
        run(wrapper, "SELECT 2")


def with_savepoint(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT 1")
        with transaction.atomic(using=wrapper.alias):
            Group.objects.using(wrapper.alias).create(name="within")


def rolled_back(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT 1")
        transaction.set_rollback(True, using=wrapper.alias)


def unreadable(wrapper: DatabaseWrapper) -> None:
    # The first of its transaction, so it is sent once more, after a BEGIN of its own.
    with pytest.raises(DatabaseError), transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELEKT 1")


def in_pipeline(wrapper: DatabaseWrapper) -> None:
    with pipeline(using=wrapper.alias):
        for number in range(5):
            Group.objects.using(wrapper.alias).filter(pk=number).update(name=f"group {number}")


def gathered(wrapper: DatabaseWrapper) -> None:
    groups = Group.objects.using(wrapper.alias)
    gather(groups.all(), groups.count, groups.filter(name="x"), using=wrapper.alias)


def named_cursor(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias), wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 250)")
        while cursor.fetchmany(100):
            pass


def many(wrapper: DatabaseWrapper) -> None:
    with wrapper.cursor() as cursor:
        cursor.executemany("SELECT %s", [[1], [2], [3]])


def copy_out(wrapper: DatabaseWrapper) -> None:
    with wrapper.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 20000)) TO STDOUT") as copy:
        for _ in copy:
            pass


def copy_in(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias), wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE numbers (number int)")
        with cursor.copy("COPY numbers FROM STDIN") as copy:
            for number in range(20000):
                copy.write_row([number])


def large(wrapper: DatabaseWrapper) -> None:
    run(wrapper, "SELECT repeat('x', 5000000)")
    run(wrapper, "SELECT length(%s)", ["x" * 5_000_000])


def session_state(wrapper: DatabaseWrapper) -> None:
    run(wrapper, "SET work_mem = '8MB'")
    wrapper.close()  # which cleans the session


def of_psycopg(wrapper: DatabaseWrapper) -> None:
    with pinned(using=wrapper.alias):
        with wrapper.connection.transaction():
            wrapper.connection.execute("SELECT 1")
