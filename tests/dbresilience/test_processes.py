"""processes.py, series.py and headline.py: several processes as one, and the worst thing about them in a sentence."""

from __future__ import annotations

import json
import os

import pytest

from dbresilience import looking_again
from dbresilience.capacity import Slots
from dbresilience.exit_codes import AWAY, NOT_WELL, WELL
from dbresilience.headline import headline, seconds_text
from dbresilience.incarnations import incarnation_of
from dbresilience.intervals import between
from dbresilience.overview import Overview
from dbresilience.processes import MOST_GONE, _without_oldest
from dbresilience.series import series
from dbresilience.server_sessions import ServerSessions, SessionGroup
from dbresilience.status_text import event_lines, status_lines
from tests.dbresilience.machines import NOW, Histories, sample
from tests.dbresilience.machines import histories as histories

SERVER = ServerSessions("ok", (SessionGroup("shop", True, "idle", 4, 0.0),), Slots(100, 3, None, 0))
AWAY_SERVER = ServerSessions("cannot_connect")


def test_processes_together(histories: Histories) -> None:
    """Sums of what is, and what came in during the last minute only."""
    histories.make(
        sample(NOW - 90, refused_total=7, waits=[1.0]), sample(NOW, in_use=2, refused_total=9, waits=[1.0, 2])
    )
    histories.make(sample(NOW - 1, in_use=5, waiting=3, waits=[0.001] * 98))
    machine = histories.machine()
    assert (machine.pool.in_use, machine.pool.waiting, machine.pool.max_size) == (7, 3, 10)
    assert machine.minute.count("refused_total") == 2
    wait = machine.minute.percentiles("wait")
    assert wait.count == 99
    assert wait.p50 == pytest.approx(0.001, rel=0.3)
    assert wait.p99 == pytest.approx(2, rel=0.3)
    assert machine.processes[0].minute.percentiles("wait").p50 == pytest.approx(2, rel=0.3)


def test_a_counter_that_began_anew_is_not_negative() -> None:
    """Its pool was exchanged for one of another configuration."""
    assert between(sample(NOW, opened_total=9), sample(NOW + 1, opened_total=2), NOW).count("opened_total") == 2


def test_columns_are_per_second_and_have_gaps_where_nobody_was(histories: Histories) -> None:
    histories.make(*(sample(NOW + 0.4 + each, in_use=1, refused_total=each * 2) for each in range(5)))
    histories.make(*(sample(NOW + 0.6 + each, in_use=2, waits=[0.1] * each) for each in range(5)))
    machine = histories.machine(NOW + 4)
    found = series(machine.processes, window_seconds=300, now=NOW + 4.9)
    assert len(found["t"]) == 300
    assert {len(column) for column in found.values()} == {300}
    assert found["in_use"][-5:] == [None, 3, 3, 3, 3]
    assert found["refused_total"][-2:] == [2.0, 2.0]
    assert found["wait_p50"][-1] == pytest.approx(0.1, rel=0.3)
    assert found["query_p50"][-1] is None
    later = series(machine.processes, window_seconds=300, now=NOW + 4.9, after=NOW + 1)
    assert later["t"] == [NOW + 2, NOW + 3]
    assert later["in_use"] == [3, 3]
    json.dumps(found, allow_nan=False)


def test_a_second_that_was_missed_is_no_hole(histories: Histories) -> None:
    """A busy machine wakes a thread late; it is not drawn as a process that was away, nor as a peak."""
    histories.make(*(sample(NOW + at, in_use=1, refused_total=int(at * 10)) for at in (0, 1, 3.0, 4)))
    found = series(histories.machine(NOW + 4).processes, window_seconds=300, now=NOW + 5)
    assert found["in_use"][-4:] == [1, 1, 1, 1]
    assert found["refused_total"][-4:] == [10.0, 10.0, 10.0, 10.0]


def test_an_hour_is_shown_by_tens(histories: Histories) -> None:
    histories.make(*(sample(NOW - 3000 + each, in_use=each % 10 == 3) for each in range(3000)))
    found = series(histories.machine().processes, window_seconds=3600, now=NOW)
    assert len(found["t"]) == 360
    assert found["in_use"][-1] == 1


@pytest.mark.parametrize(
    ("newest", "server", "level", "code", "text"),
    [
        ({"in_use": 2}, SERVER, "well", WELL, "All is well: 1 process, 2 of 5 connections in use."),
        ({"breaker": "open", "trouble_since": NOW - 12, "refused_total": 34}, AWAY_SERVER, "critical", AWAY,
         "The database has been away for 12 s: 34 requests refused."),
        ({}, AWAY_SERVER, "critical", AWAY, "The database does not answer (cannot_connect)."),
        ({"in_use": 5, "waiting": 8, "waits": [1.2]}, SERVER, "critical", NOT_WELL,
         "Pool full: 8 requests waiting, p99 of the wait 1.3 s."),
        ({"timed_out_total": 2}, SERVER, "warning", NOT_WELL, "Pools were full: 2 requests gave up waiting."),
        ({"server_full_total": 1}, SERVER, "critical", NOT_WELL, "The server is full: it takes no more connections."),
        ({"breaker": "paused", "trouble_since": NOW - 3, "waiting": 1}, SERVER, "warning", NOT_WELL,
         "Paused by an operator for 3 s now: 1 request waiting."),
        ({"refused_total": 3, "too_slow_total": 1}, SERVER, "critical", NOT_WELL,
         "4 requests refused in the last 5 s."),
        ({"breaker": "open", "trouble_since": NOW - 900}, SERVER, "warning", WELL,
         "The database is back, but 1 process has not asked it since: the next request there connects."),
        ({"breaker": "open", "trouble_since": NOW - 12, "refused_total": 1}, SERVER, "critical", AWAY,
         "The database has been away for 12 s: 1 request refused."),
        ({"breaker": "open", "trouble_since": NOW - 12, "connect_failures_total": 1}, SERVER, "critical", AWAY,
         "The database has been away for 12 s: 0 requests refused."),
        ({"max_size": 98}, SERVER, "warning", WELL,
         "The pools of this machine may open 98 connections to this database as this user; the server has 97 for them "
         "(100 slots − 3 reserved − 0 in use by others = 97). Lower max_size, or raise the limit."),
    ],
)  # fmt: skip
def test_the_worst_thing_comes_first(
    histories: Histories, newest: dict[str, object], server: ServerSessions, level: str, code: int, text: str
) -> None:
    """In one sentence, with a level and an exit code."""
    histories.make(sample(NOW - 20), sample(NOW, **newest))  # type: ignore[arg-type]
    found = headline(histories.machine(), server)
    assert (found.text, found.level, found.code) == (text, level, code)


@pytest.mark.parametrize(("every_seconds", "code"), [(5, WELL), (20, AWAY)])
def test_who_has_merely_not_asked_is_known_by_how_often_it_looks(
    histories: Histories, monkeypatch: pytest.MonkeyPatch, every_seconds: float, code: int
) -> None:
    """An attempt to connect that failed says that it is away, until the next one is overdue."""
    monkeypatch.setattr(looking_again, "EVERY_SECONDS", every_seconds)
    failed = {"breaker": "open", "trouble_since": NOW - 60, "connect_failures_total": 1}
    histories.make(sample(NOW - 60), sample(NOW - 30), sample(NOW - 15, **failed), sample(NOW, **failed))  # type: ignore[arg-type]
    assert headline(histories.machine(), SERVER).code == code


def test_an_outage_that_is_over_stays_for_a_minute(histories: Histories) -> None:
    writer = histories.make(sample(NOW - 30), sample(NOW - 20, refused_total=5), sample(NOW, refused_total=5))
    writer.add_event({"at": NOW - 9, "event": "breaker_closed", "text": "The database is back"})
    found = headline(histories.machine(), SERVER)
    assert (found.text, found.code) == ("The database came back 9 s ago: 5 requests refused before.", WELL)


def test_a_silent_process_and_a_killed_one_are_told_of(histories: Histories) -> None:
    histories.make(sample(NOW - 30))
    silent = headline(histories.machine())
    assert silent.text.startswith("Not heard of for a while: gunicorn (")
    assert silent.code == NOT_WELL
    gone = Histories(histories._folder / "other")
    gone._folder.mkdir()
    gone.make(sample(NOW - 30), pid=2**22 + 1)
    assert headline(gone.machine()).text.startswith("Ended without a word in the last minute: gunicorn (")
    gone.close()


def test_another_process_of_the_same_id_is_not_the_one_that_was_killed(histories: Histories) -> None:
    """As in a container that is started again, whose first process is number 1 again."""
    incarnation = incarnation_of(os.getpid())
    histories.make(sample(NOW - 30, in_use=3), incarnation=incarnation)
    histories.make(sample(NOW - 29, in_use=3), incarnation="another boot/77")
    assert [process.state for process in histories.machine().processes] == ["silent", "killed"]
    assert histories.machine().pool.in_use == 3


def test_who_has_been_followed_by_another_of_its_id_was_killed(histories: Histories) -> None:
    """Also where the system does not tell two processes apart; what it had in use counts no more."""
    histories.make(sample(NOW - 2, in_use=3), began_at=NOW - 100)
    histories.make(sample(NOW, in_use=1), began_at=NOW - 1)
    machine = histories.machine()
    assert [process.state for process in machine.processes] == ["killed", "alive"]
    assert (machine.pool.in_use, machine.pool.max_size) == (1, 5)


def test_what_was_counted_before_the_file_is_not_of_the_last_minute(histories: Histories) -> None:
    """A file that was removed is made again in mid-life: nothing is known until there is a second sample."""
    first = sample(NOW - 3, refused_total=500, waits=[1.0] * 9)
    histories.make(first, from_zero=False)
    assert histories.machine().minute.count("refused_total") == 0
    columns = series(histories.machine().processes, window_seconds=300, now=NOW)
    assert set(columns["refused_total"]) == {None}
    histories.make(first, sample(NOW, refused_total=502, waits=[1.0] * 10), from_zero=False)
    minute = histories.machine().minute
    assert (minute.count("refused_total"), minute.count_of("wait")) == (2, 1)


def test_of_processes_that_are_gone_the_last_fifty_are_kept(histories: Histories) -> None:
    """However many commands an hour a machine runs."""
    for number in range(MOST_GONE + 3):
        histories.make(sample(NOW - 100 - number), pid=2**22 + 1)
    found = histories.machine().processes
    kept = _without_oldest(list(found), NOW)
    assert kept == list(found)[:MOST_GONE]
    assert [each.file.path.exists() for each in found] == [True] * MOST_GONE + [False] * 3


def test_a_slow_query_is_told_of_with_its_place(histories: Histories) -> None:
    writer = histories.make(sample(NOW, slow_queries_total=2))
    for seconds in (1.5, 2.25):
        writer.add_slow_query(
            {"at": NOW - 5, "seconds": seconds, "sql": "SELECT 1", "call_site": "shop/views.py:7 in list", "path": "/"}
        )
    found = headline(histories.machine(), SERVER)
    assert found.text == "2 slow queries in the last minute, the slowest 2.2 s at shop/views.py:7 in list."
    overview = Overview("default", histories.machine(), SERVER, found)
    (slow,) = overview.facts()["slow_queries"]
    assert (slow["count"], slow["seconds"]) == (2, 2.25)


def test_what_happens_to_all_is_one_event(histories: Histories) -> None:
    for moment in (NOW - 10, NOW - 9.5):
        histories.make(sample(NOW)).add_event({"at": moment, "event": "breaker_opened", "text": "away"})
    machine = histories.machine()
    facts = Overview("default", machine, SERVER, headline(machine)).facts()
    assert [event["event"] for event in facts["events"]] == ["breaker_opened", "process_began"]
    json.dumps(facts, allow_nan=False)


@pytest.mark.parametrize("width", [20, 40])
def test_a_word_that_is_longer_than_the_terminal_is_cut(histories: Histories, width: int) -> None:
    """Or the terminal would wrap it, and the view that is drawn anew each second would shift."""
    histories.make(sample(NOW))
    machine = histories.machine()
    facts = Overview("default", machine, SERVER, headline(machine)).facts()
    facts["headline"] |= {"text": f"The database has been away: {'x' * 60} is what it said."}
    lines = status_lines(facts, width=width)
    assert max(map(len, lines)) <= width
    assert f"{'x' * (width - 1)}…" in lines
    assert any("is what it said." in line for line in lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_terminal_of_any_width(histories: Histories, width: int) -> None:
    """What is left out where there is no room is the less important; pid, use, waiting and breaker stay."""
    histories.make(sample(NOW, in_use=4, waiting=2, waits=[0.001]))
    histories.make(sample(NOW, breaker="open", trouble_since=NOW - 5, refused_total=1))
    machine = histories.machine()
    facts = Overview("default", machine, AWAY_SERVER, headline(machine, AWAY_SERVER)).facts()
    lines = status_lines(facts, width=width)
    lines += event_lines(facts, width=width, most=9)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for part in ("!!  The database has been away", "in use", "wait", "open", "2 together", "cannot_connect"):
        assert part in text
    assert ("p95 wait" in text) == (width >= 60)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0000123, "0.012 ms"), (0.00123, "1.2 ms"), (0.0354, "35 ms"), (1.234, "1.2 s")],
)
def test_durations_are_readable(seconds: float | None, text: str) -> None:
    assert seconds_text(seconds) == text
