"""pipelines.py: an error of what waited is raised as what it is, and never passes unseen."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, InterfaceError, OperationalError, transaction
from django.test.utils import CaptureQueriesContext

from dbresilience import pipeline
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.rows import create, items, names, owners
from tests.dbresilience.batches.tables import Item
from tests.dbresilience.conftest import run
from tests.support.proxy import Proxy


def test_an_error_is_its_own_names_the_statement_and_undoes_all(ours: DatabaseWrapper) -> None:
    with pytest.raises(IntegrityError, match="points_are_positive") as caught, pipeline(using=ours.alias):
        create(ours, 1)
        create(ours, 2, points=-1)
        create(ours, 3)
    assert isinstance(caught.value.__cause__, psycopg.errors.CheckViolation)
    [note] = caught.value.__cause__.__notes__
    assert note.startswith('It was raised by a statement that had waited: INSERT INTO "batches_owner"')
    assert names(ours) == []
    assert ours.resources.snapshot().in_use == 0


def test_an_error_that_commit_brings_undoes_all(ours: DatabaseWrapper) -> None:
    with pytest.raises(IntegrityError, match="one_of_a_rank"), pipeline(using=ours.alias):
        items(ours).bulk_create([Item(label="a", rank=1), Item(label="b", rank=1)])
        owners(ours).filter(points=1).update(points=2)
    assert not items(ours).exists()


def test_who_handles_an_inner_error_does_not_swallow_that_of_another(ours: DatabaseWrapper) -> None:
    """The statement that failed was executed before the block whose errors are handled."""
    with pytest.raises(IntegrityError, match="points_are_positive"), pipeline(using=ours.alias):
        create(ours, 1, points=-1)
        with suppress(IntegrityError), transaction.atomic(using=ours.alias):
            create(ours, 2)
    with pytest.raises(IntegrityError, match="points_are_positive"), pipeline(using=ours.alias):
        create(ours, 1, points=-1)
        with suppress(IntegrityError):
            owners(ours).count()
        owners(ours).count()  # refused by Django, which is not what went wrong
    assert names(ours) == []


def test_an_error_that_was_handled_two_blocks_within_is_raised_at_the_end(ours: DatabaseWrapper) -> None:
    with pytest.raises(IntegrityError, match="points_are_positive"), pipeline(using=ours.alias):
        create(ours, 1)
        with transaction.atomic(using=ours.alias):
            create(ours, 2, points=-1)
            with suppress(IntegrityError), transaction.atomic(using=ours.alias):
                create(ours, 3)
    assert names(ours) == []


def test_who_cannot_release_a_savepoint_has_mended_nothing(ours: DatabaseWrapper) -> None:
    with pytest.raises(IntegrityError), pipeline(using=ours.alias):
        sid = transaction.savepoint(using=ours.alias)
        create(ours, 1, points=-1)
        with suppress(IntegrityError):
            owners(ours).count()
        with pytest.raises(transaction.TransactionManagementError):
            transaction.savepoint_commit(sid, using=ours.alias)
        assert ours.needs_rollback


def test_who_goes_back_by_hand_goes_on(ours: DatabaseWrapper) -> None:
    with pipeline(using=ours.alias):
        create(ours, 1)
        sid = transaction.savepoint(using=ours.alias)
        create(ours, 2, points=-1)
        with suppress(IntegrityError):
            owners(ours).count()
        transaction.set_rollback(False, using=ours.alias)
        transaction.savepoint_rollback(sid, using=ours.alias)
        create(ours, 3)
    assert names(ours) == ["owner 1", "owner 3"]


def test_who_handles_the_error_of_what_he_asked_for_is_believed(ours: DatabaseWrapper) -> None:
    """As in `atomic()`: the block is undone, silently, and no function runs as if it were not."""
    hooks: list[int] = []
    with pipeline(using=ours.alias):
        create(ours, 1)
        ours.on_commit(lambda: hooks.append(1))
        with suppress(IntegrityError):
            int(owners(ours).update(points=-1))
    assert (names(ours), hooks) == ([], [])


def test_an_error_that_was_told_in_other_words_is_told(ours: DatabaseWrapper) -> None:
    with pytest.raises(KeyError, match="ours"), pipeline(using=ours.alias):
        create(ours, 1, points=-1)
        try:
            owners(ours).count()
        except IntegrityError as error:
            raise KeyError("ours") from error


def test_the_programs_own_error_undoes_what_was_never_sent(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pytest.raises(KeyError), pipeline(using=far.alias):
        create(far, 1, points=-1)
        raise KeyError
    assert proxy.round_trips == before
    create(far, 1)


def test_a_dry_run_finds_the_errors(ours: DatabaseWrapper) -> None:
    """Whoever has it rolled back by set_rollback() wants to know."""
    with pytest.raises(IntegrityError), pipeline(using=ours.alias):
        create(ours, 1, points=-1)
        transaction.set_rollback(True, using=ours.alias)
    with pipeline(using=ours.alias):
        create(ours, 1)
        with pytest.raises(IntegrityError), transaction.atomic(using=ours.alias):
            create(ours, 2, points=-1)
            transaction.set_rollback(True, using=ours.alias)
        transaction.set_rollback(True, using=ours.alias)
    assert names(ours) == []


def test_what_was_not_executed_has_no_result(ours: DatabaseWrapper) -> None:
    counts: list[Any] = []
    with pytest.raises(IntegrityError), pipeline(using=ours.alias):
        counts.append(owners(ours).update(points=-1))
        create(ours, 1, points=-1)
        counts.append(owners(ours).update(points=1))
    assert counts[0] == 0
    with pytest.raises(InterfaceError, match="was not executed"):
        bool(counts[1])
    with pipeline(using=ours.alias):
        sid = transaction.savepoint(using=ours.alias)
        count = owners(ours).update(points=1)
        transaction.savepoint_rollback(sid, using=ours.alias)
        with pytest.raises(InterfaceError, match="was not executed"):
            int(count)


def test_functions_on_commit_run_after_it(ours: DatabaseWrapper) -> None:
    seen: list[Any] = []
    with pipeline(using=ours.alias):
        create(ours, 1)
        ours.on_commit(lambda: seen.append((names(ours), ours.in_atomic_block)))
        assert seen == []
    assert seen == [(["owner 1"], False)]
    with pytest.raises(IntegrityError), pipeline(using=ours.alias):
        create(ours, 1)
        ours.on_commit(lambda: seen.append("never"))
    assert len(seen) == 1


def test_a_notify_handler_that_raises_costs_no_pipeline(ours: DatabaseWrapper) -> None:
    """Notifications come behind COMMIT, which has happened then."""
    heard: list[str] = []

    def handler(notify: psycopg.Notify) -> None:
        heard.append(notify.payload)
        raise RuntimeError("mine")

    with ours.pinned():
        run(ours, "LISTEN news")
        assert ours.connection is not None
        ours.connection.add_notify_handler(handler)
        with pipeline(using=ours.alias):
            create(ours, 1)
            with ours.cursor() as cursor:
                cursor.execute("NOTIFY news, 'read all about it'")
        assert heard == ["read all about it"]
        assert names(ours) == ["owner 1"]


def test_what_could_not_be_executed_for_an_error_before_it_has_its_text(ours: DatabaseWrapper) -> None:
    """In Django's log of queries; the debug toolbar fails without."""
    with CaptureQueriesContext(ours) as asked, transaction.atomic(using=ours.alias):
        create(ours, 1)
        with suppress(IntegrityError), pipeline(using=ours.alias):
            create(ours, 1)
    assert all(each["sql"] for each in asked.captured_queries)
    assert names(ours) == ["owner 1"]


@pytest.mark.parametrize("value", ["a text, for which the connection is asked", object()])
def test_a_text_that_cannot_be_had_hides_no_error(ours: DatabaseWrapper, value: Any) -> None:
    """The session is over, or the values are none: what is told of is what came before."""
    alone = "SELECT %s; SELECT 2"
    with CaptureQueriesContext(ours) as asked, suppress(OperationalError), transaction.atomic(using=ours.alias):
        with pytest.raises(OperationalError) as caught, pipeline(using=ours.alias), ours.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            cursor.execute(alone, [value])
        assert getattr(caught.value.__cause__, "sqlstate", None) == "57P01"
        raise OperationalError
    assert alone in [each["sql"] for each in asked.captured_queries]
    with pytest.raises(IntegrityError), pipeline(using=ours.alias), ours.cursor() as cursor:
        create(ours, 1, points=-1)
        cursor.execute(alone, [value])


def test_it_may_be_written_without_parentheses(db: None) -> None:
    @pipeline
    def add(number: int) -> int:
        """Says what it does."""
        return number + 1

    assert add(1) == 2
    assert add.__doc__ == "Says what it does."
