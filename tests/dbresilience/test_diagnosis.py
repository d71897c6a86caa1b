"""diagnosis.py: what no server of the tests can be made to say, and the text that a page shows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dbresilience.capacity import Demand, Processes, Slots
from dbresilience.conf import Configuration
from dbresilience.diagnosis import diagnose
from dbresilience.facts import Facts, ServerFacts
from dbresilience.findings import Finding, counts, fine, warning, worst_first
from tests.places import BASE_DIR

WELL = Facts(
    alias="default",
    configuration=Configuration.from_settings("default", {}, debug=False),
    processes=Processes(1, 1, "a test"),
    sizes={"default": 10},
    wanted_server="any",
    server=ServerFacts(version=180000, oldest_version=14, slots=Slots(100, 3, None, 0)),
)
ELSEWHERE = {"local": False, "encrypted": True, "sslmode": "verify-full", "keepalive_seconds": 30,
             "server_keepalive_seconds": 60}  # fmt: skip


def with_server(facts: Facts = WELL, **changes: Any) -> Facts:
    return replace(facts, server=replace(facts.server, **changes))


def wrong(facts: Facts) -> dict[str, Finding]:
    return {each.name: each for each in diagnose(facts) if each.severity != "fine"}


def test_a_sound_server_on_either_machine() -> None:
    """The base of the cases below."""
    assert not wrong(WELL)
    assert not wrong(with_server(**ELSEWHERE))


@pytest.mark.parametrize(
    ("changes", "name", "severity", "mended"),
    [
        ({"version": 130012}, "version", "error", {"version": 140001}),
        ({**ELSEWHERE, "encrypted": False}, "tls", "warning", {"encrypted": True}),
        ({**ELSEWHERE, "keepalive_seconds": 0}, "keepalives", "warning", {"keepalive_seconds": 600}),
        ({**ELSEWHERE, "keepalive_seconds": 7200}, "keepalives", "warning", {"keepalive_seconds": 60}),
        ({**ELSEWHERE, "server_keepalive_seconds": 7200}, "server_keepalives", "warning", {"pooler": "session"}),
        ({**ELSEWHERE, "superuser": True}, "role", "warning", {"local": True}),
        ({"read_only": True}, "read_only", "warning", {"read_only": False}),
        ({"milliseconds": {"statement_timeout": 60000}}, "statement_timeout", "warning",
         {"milliseconds": {"statement_timeout": 59000}}),
        ({"milliseconds": {"idle_session_timeout": 600000}}, "idle_session_timeout", "warning",
         {"milliseconds": {"idle_session_timeout": 601000}}),
        ({"milliseconds": {"idle_in_transaction_session_timeout": 4999}}, "idle_in_transaction_session_timeout",
         "warning", {"milliseconds": {"idle_in_transaction_session_timeout": 5000}}),
        ({"milliseconds": {"transaction_timeout": 60000}}, "transaction_timeout", "warning",
         {"milliseconds": {"transaction_timeout": 61000}}),
        ({"milliseconds": {"statement_timeout": 5000, "lock_timeout": 5000}}, "lock_timeout", "warning",
         {"milliseconds": {"statement_timeout": 5000, "lock_timeout": 2000}}),
        ({"in_use": 88}, "slots_now", "warning", {"in_use": 87}),
    ],
)  # fmt: skip
def test_each_rule_both_ways(changes: dict[str, Any], name: str, severity: str, mended: dict[str, Any]) -> None:
    """One finding with something to set, and none a step further."""
    found = wrong(with_server(**changes))
    assert list(found) == [name]
    assert found[name].severity == severity
    assert found[name].set
    assert not wrong(with_server(with_server(**changes), **mended))


def test_encryption_without_a_look_at_who_answers_is_fine_with_advice() -> None:
    """`require` keeps listeners out, not an impostor."""
    (tls,) = (each for each in diagnose(with_server(**ELSEWHERE | {"sslmode": "require"})) if each.name == "tls")
    assert tls.severity == "fine"
    assert tls.set == '"OPTIONS": {"sslmode": "verify-full"} in DATABASES["default"], or sslmode=verify-full in its URL'


def test_a_pooler_whose_mode_is_not_known() -> None:
    """It is said, and the server's slots are not taken for ours."""
    found = {each.name: each for each in diagnose(with_server(pooler="unknown", slots=Slots(20, 3, None, 0)))}
    assert "could not be told" in found["pooler"].found
    assert found["slots"].severity == "fine"


def test_no_deadline_bounds_nothing() -> None:
    """Neither a request nor a task."""
    endless = replace(WELL, configuration=replace(WELL.configuration, deadline_seconds=None))
    (found,) = (each for each in diagnose(endless) if each.name == "statement_timeout")
    assert found.found == "None: nothing bounds a statement."


@pytest.mark.parametrize("left", range(5, 400, 13))
@pytest.mark.parametrize("aliases", [1, 2])
def test_the_size_to_paste_is_the_largest_that_fits(left: int, aliases: int) -> None:
    """One more would not."""
    processes = Processes(3, 2, "")
    size = Demand(processes, 99).largest_size(left, aliases)
    if size > 0:
        assert Demand(processes, size * aliases).rolling <= left
    assert Demand(processes, (max(size, 0) + 1) * aliases).rolling > left


def test_worst_comes_first_and_all_are_counted() -> None:
    """Those of one severity stay in the order of the rules."""
    given = [fine("a", ""), warning("b", ""), fine("c", ""), warning("d", "")]
    assert [each.name for each in worst_first(given)] == ["b", "d", "a", "c"]
    assert counts(given) == {"error": 0, "warning": 2, "fine": 2}


def test_the_page_shows_what_is_said() -> None:
    """The example in docs/howto/size-the-pool.md."""
    facts = replace(WELL, processes=Processes(8, 2, "--processes"))
    facts = with_server(facts, slots=Slots(100, 3, None, 4), in_use=27)
    page = (BASE_DIR / "docs" / "howto" / "size-the-pool.md").read_text()
    slots, now, *_ = diagnose(facts)
    assert str(slots) in page
    assert str(now) in page
    assert f"'default' with {facts.processes} ({facts.processes.source}; --workers N for others)." in page
