"""Several hosts, one of them the primary: after a promotion writes are accepted again, with no restart."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from django.db import Error, OperationalError

from dbresilience.base import DatabaseWrapper
from dbresilience.errors import DatabaseUnavailable, classify
from dbresilience.liveness import is_demoted
from tests.support.postgres import ThrowawayPostgres
from tests.support.standby import Standby

from .conftest import MakeWrapper, in_thread

pytestmark = pytest.mark.slow

_numbers = itertools.count(1)


@pytest.fixture
def primary() -> Iterator[ThrowawayPostgres]:
    with ThrowawayPostgres() as server:
        server.execute("CREATE TABLE written (number int PRIMARY KEY)")
        yield server


@pytest.fixture
def standby(primary: ThrowawayPostgres) -> Iterator[Standby]:
    with Standby(primary) as server:
        yield server


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[ThrowawayPostgres, Standby]]:
    """A primary and its standby that stay what they are."""
    with ThrowawayPostgres() as primary:
        primary.execute("CREATE TABLE written (number int PRIMARY KEY)")
        with Standby(primary) as standby:
            yield primary, standby


def both(*servers: ThrowawayPostgres, **options: Any) -> dict[str, Any]:
    """Settings of an alias that may use any of `servers`."""
    return {"target_session_attrs": "read-write", "pool": {"max_size": 4, "timeout": 2}} | options


def use(wrapper: DatabaseWrapper, *servers: ThrowawayPostgres) -> DatabaseWrapper:
    wrapper.settings_dict |= {
        "HOST": ",".join("127.0.0.1" for _ in servers),
        "PORT": ",".join(str(server.port) for server in servers),
        "NAME": "postgres",
    }
    return wrapper


@contextmanager
def read_only_by_default(server: ThrowawayPostgres) -> Iterator[None]:
    """It refuses writes of whoever does not ask for them, as an administrator may order; its sessions stay."""
    server.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    server.execute("SELECT pg_reload_conf()")
    time.sleep(0.2)
    try:
        yield
    finally:
        server.execute("ALTER SYSTEM RESET default_transaction_read_only")
        server.execute("SELECT pg_reload_conf()")


def write(wrapper: DatabaseWrapper) -> int:
    number = next(_numbers)
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO written VALUES (%s)", [number])
    return number


def open_sessions(wrapper: DatabaseWrapper, make_wrapper: MakeWrapper, servers: Any, count: int) -> None:
    """Fill the pool with idle connections."""
    barrier = threading.Barrier(count)

    def work() -> None:
        mine = use(make_wrapper(**both()), *servers)
        with mine.pinned():
            barrier.wait(10)

    for thread in [in_thread(work) for _ in range(count)]:
        thread.join(10)
    assert wrapper.resources.snapshot().idle == count


class Writer:
    """A client that writes again and again, every 20 milliseconds."""

    def __init__(self, wrapper: DatabaseWrapper) -> None:
        self.wrapper = wrapper
        wrapper.inc_thread_sharing()
        self.accepted: list[tuple[float, int]] = []
        self.refused: list[tuple[float, Exception]] = []
        self._stop = threading.Event()

    def __enter__(self) -> Writer:
        self._thread = in_thread(self._write)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _write(self) -> None:
        while not self._stop.wait(0.02):
            try:
                self.accepted.append((time.monotonic(), write(self.wrapper)))
            except Error as error:
                self.refused.append((time.monotonic(), error))

    def first_accepted_after(self, moment: float) -> float:
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            if found := next((at for at, _ in self.accepted if at > moment), None):
                return found - moment
            time.sleep(0.01)
        raise AssertionError("no write was accepted")


@pytest.mark.timed
@pytest.mark.parametrize("end", ["crash", "fast"])
def test_a_standby_is_promoted_while_a_client_writes(
    make_wrapper: MakeWrapper, primary: ThrowawayPostgres, standby: Standby, end: str
) -> None:
    """Within a second after promotion writes are accepted. Until then they are refused unsent; at most one fails."""
    wrapper = use(make_wrapper(**both()), primary, standby)
    open_sessions(wrapper, make_wrapper, (primary, standby), 4)
    with Writer(wrapper) as writer:
        time.sleep(0.5)
        standby.wait_until_same()
        primary.kill() if end == "crash" else primary.stop("fast")
        time.sleep(1)
        standby.promote()
        promoted = time.monotonic()
        took = writer.first_accepted_after(promoted)
        time.sleep(0.3)
    late = [error for at, error in writer.refused if at > promoted + 0.01]
    print(f"first write {took:.3f} s after promotion, {len(writer.refused)} refused before, {len(late)} after it")
    assert took <= 1
    assert max((at for at, _ in writer.refused), default=0.0) <= promoted + 1
    assert len([error for error in late if not isinstance(error, DatabaseUnavailable)]) <= 1
    assert {classify(error).status for _, error in writer.refused} <= {503}
    assert len(standby.execute("SELECT 1 FROM written")) >= 2


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes no connection and refuses none, as a machine that is gone."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.timed
def test_a_machine_that_is_gone_delays_one_connection_only(
    make_wrapper: MakeWrapper, pair: tuple[ThrowawayPostgres, Standby], black_hole: int
) -> None:
    """Whoever was the primary last is asked first, by the pool and by the probe."""
    wrapper = use(make_wrapper(**both(connect_timeout=2, pool={"timeout": 8})), pair[0])
    wrapper.settings_dict |= {"HOST": "127.0.0.1,127.0.0.1", "PORT": f"{black_hole},{pair[0].port}"}
    started = time.monotonic()
    write(wrapper)
    assert 1.9 < time.monotonic() - started < 4
    for _ in range(3):
        wrapper.resources.recycle()
        started = time.monotonic()
        write(wrapper)
        assert time.monotonic() - started < 1
    assert wrapper.resources.health().healthy


@pytest.mark.parametrize("how", ["read-only", "demoted"])
def test_the_old_primary_stays_and_takes_no_writes(
    make_wrapper: MakeWrapper, primary: ThrowawayPostgres, standby: Standby, how: str
) -> None:
    """Its connections stay open, or come back to a standby: one write fails, the next finds the new primary."""
    wrapper = use(make_wrapper(**both()), primary, standby)
    open_sessions(wrapper, make_wrapper, (primary, standby), 4)
    write(wrapper)
    standby.wait_until_same()
    standby.promote()
    if how == "read-only":
        primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        primary.execute("SELECT pg_reload_conf()")
        time.sleep(0.2)
    else:
        primary.stop("fast")
        (primary.data / "standby.signal").touch()
        primary.start()
    failed = []
    for _ in range(20):
        try:
            write(wrapper)
        except Error as error:
            failed.append(classify(error).name)
    assert failed in ([], ["read_only"])
    assert len(standby.execute("SELECT 1 FROM written")) >= 20


def test_readers_leave_a_server_that_became_read_only(
    make_wrapper: MakeWrapper, primary: ThrowawayPostgres, standby: Standby
) -> None:
    """What it reports with an answer is enough; no write has to fail first."""
    wrapper = use(make_wrapper(**both()), primary, standby)
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    standby.promote()
    primary.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    primary.execute("SELECT pg_reload_conf()")
    time.sleep(0.2)
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert wrapper.resources.snapshot().generation == 1
    write(wrapper)
    assert wrapper.resources.snapshot().generation == 2


def test_without_a_wish_a_standby_is_good_enough(
    make_wrapper: MakeWrapper, pair: tuple[ThrowawayPostgres, Standby]
) -> None:
    """A reader's alias keeps its connections to a standby."""
    wrapper = use(make_wrapper(), pair[1])
    with wrapper.pinned():
        assert not is_demoted(wrapper.connection)
        assert wrapper.connection.is_read_only_server
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert wrapper.resources.snapshot().opened_total == 1


@pytest.mark.parametrize(("wanted", "generation"), [("standby", 1), ("any", 2)])
def test_a_write_on_a_reader_is_a_mistake_of_the_program(
    make_wrapper: MakeWrapper, pair: tuple[ThrowawayPostgres, Standby], wanted: str, generation: int
) -> None:
    """Its pool stays; where nobody said what is wanted, the name may lead to another server by now."""
    wrapper = use(make_wrapper(target_session_attrs=wanted), pair[1])
    with pytest.raises(Error) as caught:
        write(wrapper)
    assert classify(caught.value).name == "read_only"
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert wrapper.resources.snapshot().generation == generation


@pytest.mark.parametrize("wanted", ["read-write", "primary"])
def test_with_no_primary_there_is_a_503(make_wrapper: MakeWrapper, pair: tuple[ThrowawayPostgres, Standby],
                                        wanted: str) -> None:  # fmt: skip
    """Nothing is written to a standby, and the reason is told."""
    wrapper = use(make_wrapper(target_session_attrs=wanted), pair[1])
    with pytest.raises(OperationalError) as caught:
        write(wrapper)
    assert classify(caught.value).status == 503


def test_a_primary_that_is_read_only_by_default_serves_who_wants_a_primary(
    make_wrapper: MakeWrapper, pair: tuple[ThrowawayPostgres, Standby]
) -> None:
    """libpq takes it, so giving it up would go on for ever."""
    wrapper = use(make_wrapper(target_session_attrs="primary"), pair[0])
    with read_only_by_default(pair[0]):
        for _ in range(3):
            with wrapper.cursor() as cursor:
                cursor.execute("SELECT 1")
    assert wrapper.resources.snapshot().opened_total == 1
