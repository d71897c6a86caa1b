"""gathering.py: reads that travel together."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError, OperationalError, ProgrammingError, connections, transaction
from django.db.models.sql.compiler import SQLCompiler
from django.test.utils import CaptureQueriesContext

from dbresilience import batches, gather, pipeline
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.programs import key
from tests.dbresilience.batches.reads import fill
from tests.dbresilience.batches.rows import create, items, names, owners
from tests.dbresilience.batches.tables import Note, Owner, create_tables
from tests.dbresilience.conftest import MakeWrapper, run, settings_for
from tests.support.proxy import SENT, Proxy


def test_reads_cost_one_round_trip(far: DatabaseWrapper, proxy: Proxy) -> None:
    fill(far.alias)
    before = proxy.round_trips
    found = gather(
        items(far).select_related("owner").order_by("pk"),
        owners(far).count,
        owners(far).filter(points=1).exists,
        lambda: owners(far).get(pk=key(1)),
        lambda: items(far).aggregate(),
        using=far.alias,
    )
    assert proxy.round_trips - before == 1
    assert [type(each) for each in found] == [list, int, bool, Owner, dict]
    assert found[0][0].owner.name == "b"
    assert proxy.round_trips - before == 1
    assert far.resources.snapshot().in_use == 0


def test_a_queryset_that_was_evaluated_stays_as_it_is(ours: DatabaseWrapper) -> None:
    """It is whoever gave it who goes on with it, and narrows it."""
    fill(ours.alias)
    mine = owners(ours).order_by("pk")
    known = list(mine)
    assert len(known) > 1
    again, count = gather(mine, owners(ours).count, using=ours.alias)
    assert [id(each) for each in again] == [id(each) for each in known]
    assert count == len(known)
    assert list(mine.filter(pk=known[-1].pk)) == [known[-1]]


def test_no_connection_is_held_while_statements_and_objects_are_made(
    ours: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both take longer than a server that is near."""
    fill(ours.alias)
    in_use: list[int] = []

    def noted(function: Any) -> Any:
        def note(*args: Any, **kwargs: Any) -> Any:
            in_use.append(ours.resources.snapshot().in_use)
            return function(*args, **kwargs)

        return note

    monkeypatch.setattr(SQLCompiler, "as_sql", noted(SQLCompiler.as_sql))
    monkeypatch.setattr(Owner, "from_db", classmethod(noted(Owner.from_db.__func__)))  # type: ignore[attr-defined]
    found = gather(owners(ours), items(ours).select_related("owner").exclude(owner=None), using=ours.alias)
    assert len(in_use) > len(found)
    assert set(in_use) == {0}


def test_within_a_transaction_it_begins_that(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with transaction.atomic(using=far.alias):
        assert gather(owners(far), owners(far).count, using=far.alias) == [[], 0]
    assert proxy.round_trips - before == 2


def test_it_takes_along_the_writes_of_a_pipeline(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pipeline(using=far.alias):
        create(far, 1)
        assert gather(owners(far).count, items(far), using=far.alias) == [1, []]
    assert proxy.round_trips - before == 2
    with pytest.raises(IntegrityError) as caught, pipeline(using=far.alias):
        create(far, 1)
        gather(owners(far).count, using=far.alias)
    assert not hasattr(caught.value, "__notes__")  # it was no read that failed


def test_what_is_forgotten_does_not_fill_the_batch(
    far: DatabaseWrapper, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what comes later would be sent before it need be."""

    def fail() -> None:
        raise KeyError

    monkeypatch.setattr(batches, "MOST_BYTES", 900)
    with pipeline(using=far.alias):
        with suppress(KeyError):
            gather(owners(far).filter(name="x" * 900), fail, using=far.alias)
        before = proxy.round_trips
        create(far, 1)
        create(far, 2)
        assert proxy.round_trips == before


def test_an_error_names_the_read(ours: DatabaseWrapper) -> None:
    fill(ours.alias)
    wrong = owners(ours).extra(where=["nonsense"])
    with pytest.raises(ProgrammingError, match="nonsense") as caught:
        gather(owners(ours), wrong, owners(ours).count, using=ours.alias)
    assert caught.value.__notes__ == ["It was raised by read number 2 of gather()."]
    with pytest.raises(Owner.DoesNotExist) as missing:
        gather(owners(ours), owners(ours), lambda: owners(ours).get(name="nobody"), using=ours.alias)
    assert missing.value.__notes__ == ["It was raised by read number 3 of gather()."]
    with pytest.raises(ObjectDoesNotExist), transaction.atomic(using=ours.alias):
        gather(lambda: owners(ours).get(name="nobody"), using=ours.alias)
    with pytest.raises(TypeError, match="number 2 is 7"):
        gather(owners(ours), 7, using=ours.alias)  # type: ignore[arg-type]
    assert ours.resources.snapshot().in_use == 0
    assert gather(using=ours.alias) == []


def test_a_function_that_begins_a_transaction_goes_by_itself(far: DatabaseWrapper) -> None:
    """It is more than a read, and must neither undo nor end what the others share."""
    calls: list[int] = []

    def write() -> str:
        calls.append(1)
        with transaction.atomic(using=far.alias):
            return create(far, 10 + len(calls)).name

    found = gather(owners(far).count, write, owners(far), using=far.alias)
    assert found == [0, f"owner {10 + len(calls)}", []]
    assert len(names(far)) == 1
    with transaction.atomic(using=far.alias):
        assert gather(write, owners(far).count, using=far.alias)[1] == 1
        assert not far.needs_rollback
    with transaction.atomic(using=far.alias):
        found = gather(lambda: owners(far).get_or_create(name="new", defaults={"id": key(99)}), using=far.alias)
    assert found[0][1]
    assert len(names(far)) == 3


def test_a_function_that_swallows_everything_goes_by_itself(far: DatabaseWrapper) -> None:
    """Its first call is ended by an exception that it must not have the last word on."""
    create(far, 1)

    def count() -> int:
        with suppress(BaseException):
            return int(owners(far).count())
        return -1

    assert gather(count, owners(far).count, using=far.alias) == [1, 1]


def test_a_read_that_was_lost_late_does_not_go_again(
    far: DatabaseWrapper, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be why the session ended."""
    monkeypatch.setattr("dbresilience.gathering.LONGEST_READ_SECONDS", 0.0)
    proxy.cut_when(lambda message: "COUNT" in message.sql, after=SENT)
    with pytest.raises(OperationalError):
        gather(owners(far).count, using=far.alias)
    assert gather(owners(far).count, using=far.alias) == [0]


def test_a_router_says_where_querysets_go(far: DatabaseWrapper, proxy: Proxy, settings: Any) -> None:
    class ToFar:
        def db_for_read(self, model: Any, **hints: Any) -> str:
            return far.alias

    settings.DATABASE_ROUTERS = [ToFar()]
    create(far, 1)
    before = proxy.round_trips
    [first, second] = gather(Owner._default_manager.all(), Owner._default_manager.values("name"), using=far.alias)
    assert proxy.round_trips - before == 1
    assert [first[0]._state.db, second] == [far.alias, [{"name": "owner 1"}]]


def test_what_a_function_does_not_ask_for_is_done(far: DatabaseWrapper) -> None:
    create(far, 1)
    [count, rows] = gather(lambda: owners(far).update(points=3), owners(far), using=far.alias)
    assert count == 1
    assert owners(far).get().points == 3
    assert [row.name for row in rows] == ["owner 1"]


def test_captured_queries_are_there_once(ours: DatabaseWrapper) -> None:
    with CaptureQueriesContext(ours) as captured:
        gather(owners(ours), owners(ours).count, items(ours).first, using=ours.alias)
    assert len(captured) == 3


def test_each_alias_has_its_reads(ours: DatabaseWrapper, plain: Any, make_wrapper: MakeWrapper) -> None:
    create(ours, 1)
    ours_twice = [owners(ours), owners(ours).using(ours.alias)]
    assert [len(each) for each in gather(*ours_twice, using=ours.alias)] == [1, 1]
    # Where one of them cannot, each read goes by itself.
    assert [len(each) for each in gather(owners(ours), owners(plain), using=ours.alias)] == [1, 1]


def test_two_databases_are_asked_one_after_the_other(
    far: DatabaseWrapper, proxy: Proxy, database_url: str, django_db_blocker: Any
) -> None:
    create(far, 1)
    settings = settings_for(proxy.url(database_url))
    connections.settings["other"] = settings
    other: Any = DatabaseWrapper(settings, "other")
    connections["other"] = other
    try:
        run(other, "SELECT 1")
        before = proxy.round_trips
        found = gather(owners(far).values_list("name", flat=True), owners(other), owners(far).count, using=far.alias)
        assert proxy.round_trips - before == 2
        assert found == [["owner 1"], [owners(other).get()], 1]
        assert found[1][0]._state.db == "other"
    finally:
        other.close()
        other.resources.close("the test ended")
        del connections.settings["other"], connections["other"]


def test_within_pinned_the_connection_stays(ours: DatabaseWrapper) -> None:
    with ours.pinned():
        connection = ours.connection
        assert gather(owners(ours), owners(ours).count, using=ours.alias) == [[], 0]
        assert ours.connection is connection
    assert ours.resources.snapshot().in_use == 0


def test_a_queryset_that_is_known_costs_nothing(far: DatabaseWrapper, proxy: Proxy) -> None:
    known = owners(far)
    list(known)
    before = proxy.round_trips
    assert gather(known, owners(far).none(), lambda: 7, using=far.alias) == [[], [], 7]
    assert proxy.round_trips == before


@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 0}, {"pool": False}])
def test_other_settings_do_the_same(make_wrapper: MakeWrapper, options: dict[str, Any]) -> None:
    wrapper = make_wrapper(**options)
    create_tables(wrapper)
    fill(wrapper.alias)
    found = gather(owners(wrapper).filter(points=1), items(wrapper).count, using=wrapper.alias)
    assert [found[0][0].name, found[1]] == ["b", 9]
    with transaction.atomic(using=wrapper.alias):
        assert gather(items(wrapper).count, Note._default_manager.using(wrapper.alias), using=wrapper.alias)[0] == 9
    wrapper.close()


def test_a_coroutine_has_it_by_a_thread(ours: DatabaseWrapper) -> None:
    ours.inc_thread_sharing()

    def work() -> tuple[list[Any], int]:
        connections[ours.alias] = ours
        with pipeline(using=ours.alias):
            create(ours, 1)
        return gather(owners(ours).count, items(ours), using=ours.alias), ours.resources.snapshot().in_use

    @async_to_sync
    async def main() -> Any:
        return await sync_to_async(work)()

    assert main() == ([1, []], 0)
