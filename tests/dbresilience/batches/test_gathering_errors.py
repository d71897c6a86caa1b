"""gathering.py: whose error it is, who hears of it, and what is left of the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, InternalError, OperationalError, ProgrammingError, transaction
from django.test.utils import CaptureQueriesContext

from dbresilience import DatabaseUnavailable, batches, gather, no_retries, pipeline
from dbresilience.base import DatabaseWrapper
from dbresilience.pool import Pool
from tests.dbresilience.batches.reads import fill
from tests.dbresilience.batches.rows import create, end_session, names, owners
from tests.dbresilience.batches.tables import Owner
from tests.dbresilience.conftest import in_thread, pid_of, run
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy


def change_and_fail(wrapper: DatabaseWrapper, points: int) -> Any:
    def read() -> None:
        owners(wrapper).update(points=points)
        raise KeyError

    return read


def test_what_a_function_did_before_it_failed_is_done(ours: DatabaseWrapper) -> None:
    create(ours, 1)
    with pytest.raises(KeyError):
        gather(owners(ours), change_and_fail(ours, 7), using=ours.alias)
    assert owners(ours).get().points == 7
    with pytest.raises(IntegrityError, match="points_are_positive"), transaction.atomic(using=ours.alias):
        gather(change_and_fail(ours, -1), using=ours.alias)
    assert owners(ours).get().points == 7
    assert ours.resources.snapshot().in_use == 0


def test_an_error_that_was_handled_is_not_raised_again(ours: DatabaseWrapper) -> None:
    wrong = owners(ours).extra(where=["nonsense"])
    with pipeline(using=ours.alias):
        create(ours, 1)
        with suppress(DatabaseError):
            gather(wrong, using=ours.alias)
        transaction.set_rollback(True, using=ours.alias)
    assert names(ours) == []


def test_the_read_is_named_also_if_so_many_wait_that_they_are_sent(
    ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "MOST_WAITING", 4)
    wrong = owners(ours).extra(where=["nonsense"])
    with pytest.raises(ProgrammingError) as caught:
        gather(owners(ours), wrong, *[owners(ours)] * 5, using=ours.alias)
    assert caught.value.__notes__ == ["It was raised by read number 2 of gather()."]


def test_more_reads_than_may_wait_are_answered(ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ours.alias)
    monkeypatch.setattr(batches, "MOST_WAITING", 3)
    functions = [lambda number=number: owners(ours).filter(points=number).first() for number in range(8)]
    assert gather(*functions, using=ours.alias) == [function() for function in functions]
    counts = [owners(ours).filter(points=number).count for number in range(8)]
    assert gather(*counts, using=ours.alias) == [count() for count in counts]
    assert ours.resources.snapshot().in_use == 0


def test_they_are_sent_as_many_at_a_time_as_may_wait(
    far: DatabaseWrapper, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(far.alias)
    monkeypatch.setattr(batches, "MOST_WAITING", 3)
    before = proxy.round_trips
    gather(*[lambda: owners(far).filter(points=1).first()] * 8, using=far.alias)
    assert proxy.round_trips - before == 3


def test_after_one_that_got_no_connection_the_next_gives_its_own_back(
    ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise DatabaseUnavailable("There is none.")

    with monkeypatch.context() as patch:
        patch.setattr(Pool, "acquire", refuse)
        with pytest.raises(DatabaseUnavailable):
            gather(owners(ours), using=ours.alias)
    run(ours, "SELECT 1")
    assert ours.resources.snapshot().in_use == 0


def failing(wrapper: DatabaseWrapper, handle: Callable[[], Any] = lambda: "handled") -> Callable[[], Any]:
    """A read that handles the error of its query."""

    def read() -> Any:
        try:
            return list(owners(wrapper).extra(where=["1 / 0 = 1"]))
        except DatabaseError:
            return handle()

    return read


def test_a_function_may_handle_the_error_of_its_query(far: DatabaseWrapper) -> None:
    """As where it asks by itself; the others are asked again."""
    create(far, 1)
    read = failing(far)
    with CaptureQueriesContext(far) as asked:
        found = gather(owners(far).values_list("name", flat=True), read, owners(far).count, using=far.alias)
    assert found == [["owner 1"], "handled", 1]
    assert any("1 / 0" in each["sql"] for each in asked.captured_queries)
    assert gather(read, read, using=far.alias) == ["handled"] * 2
    assert far.resources.snapshot().in_use == 0


def test_a_function_may_make_another_error_of_it(ours: DatabaseWrapper) -> None:
    def look_up() -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine") as caught:
        gather(owners(ours), failing(ours, look_up), using=ours.alias)
    assert caught.value.__notes__ == ["It was raised by read number 2 of gather()."]


def test_a_transaction_is_broken_by_an_error_that_a_function_handles(ours: DatabaseWrapper) -> None:
    with pytest.raises(InternalError), transaction.atomic(using=ours.alias):
        assert gather(failing(ours), using=ours.alias) == ["handled"]
        owners(ours).count()
    with transaction.atomic(using=ours.alias), pytest.raises(InternalError):
        gather(failing(ours), owners(ours), using=ours.alias)


async def coroutine() -> None: ...


@pytest.mark.parametrize("read", [Owner.objects, Owner, coroutine, Owner.objects.all().acount, 7])
def test_what_is_no_read_is_refused(ours: DatabaseWrapper, read: Any) -> None:
    with pytest.raises(TypeError, match="its read number 2 is"):
        gather(owners(ours), read, using=ours.alias)


def test_what_is_done_is_not_done_again_for_an_error_that_could_be_handled(ours: DatabaseWrapper) -> None:
    """Then it is raised."""

    def write() -> None:
        with ours.cursor() as cursor:
            cursor.executemany("INSERT INTO batches_owner VALUES (gen_random_uuid(), %s, 0)", [["a"], ["b"]])

    with pytest.raises(DatabaseError, match="division"):
        gather(write, failing(ours), using=ours.alias)
    assert sorted(names(ours)) == ["a", "b"]


def test_what_is_lost_after_an_error_was_handled_is_read_again(
    far: DatabaseWrapper, postgres: ThrowawayPostgres
) -> None:
    create(far, 1)
    ended: list[int] = []

    def name() -> str:
        if ended:
            end_session(postgres, ended.pop())
        return owners(far).get().name

    read = failing(far, lambda: ended.append(far.connection.info.backend_pid))
    assert gather(read, name, using=far.alias) == [None, "owner 1"]


def test_what_is_lost_while_an_error_is_handled_is_not_read_again(
    far: DatabaseWrapper, postgres: ThrowawayPostgres
) -> None:
    """Nobody knows what the function had done by then."""

    def handle() -> None:
        create(far, owners(far).count() + 1)
        with no_retries(), far.pinned():
            end_session(postgres, pid_of(far))
            owners(far).count()

    with pytest.raises(OperationalError):
        gather(failing(far, handle), using=far.alias)
    assert names(far) == ["owner 1"]


def test_a_function_whose_session_was_lost_does_not_ask_anew(
    far: DatabaseWrapper, proxy: Proxy, postgres: ThrowawayPostgres
) -> None:
    """Within what handles the error, on another connection, that would be a retry where there are to be none."""
    sleeps = "pg_sleep(3)"
    ends_it = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"

    def read() -> Any:
        with suppress(DatabaseError):
            return run(far, f"SELECT {sleeps}")

    ending = in_thread(lambda: wait_until(lambda: postgres.execute(ends_it) != []))
    with no_retries(), pytest.raises(OperationalError):
        gather(read, using=far.alias)
    ending.join()
    assert sum(sleeps in statement for statement in proxy.statements) == 1
