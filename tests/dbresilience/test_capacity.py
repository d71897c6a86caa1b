"""The sum of all processes' connections: of how many processes, and where it warns."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.core.checks import registry
from django.core.management import CommandError, call_command

from dbresilience.capacity import declared_processes
from dbresilience.checks import CHECKS
from dbresilience.checks.capacity import check_slots


@pytest.mark.parametrize("wrong", [["--processes=0"], ["--workers=-1"], ["--processes=many"]])
def test_an_impossible_number_of_processes_is_refused(wrong: list[str]) -> None:
    """As argparse does, with exit code 2."""
    with pytest.raises(CommandError, match="give a whole number"):
        call_command("dbresilience", "doctor", *wrong)


def test_where_the_number_of_processes_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """The option, else WEB_CONCURRENCY, else one; and it says so."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    assert declared_processes().web == 4
    assert declared_processes(12).web == 12
    assert declared_processes(12).source == "--processes"
    for nothing in ("", "many", "0"):
        monkeypatch.setenv("WEB_CONCURRENCY", nothing)
        assert (declared_processes().web, "is not set" in declared_processes().source) == (1, True)


@pytest.mark.django_db
def test_migrate_and_check_do_the_sum(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """dbresilience.W024, where Django lets checks ask a database; no other check asks one."""
    assert [each.tags for each in CHECKS if "database" in getattr(each, "tags", ())] == [("database",)]
    assert registry.run_checks(tags=["database"], databases=["default"]) == []
    monkeypatch.setenv("WEB_CONCURRENCY", "60")
    (found,) = registry.run_checks(tags=["database"], databases=["default"])
    assert found.id == "dbresilience.W024"
    assert "60 web processes + 1 other with 10 connections each" in found.msg
    assert "max_size" in str(found.hint) or "max_connections" in str(found.hint)
    assert check_slots(None) == []


def test_the_sum_is_silent_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Who needs the server says what is wrong with it."""
    from dbresilience.checks import capacity

    def away(*_: object) -> None:
        raise psycopg.OperationalError("away")

    monkeypatch.setattr(capacity, "examine", away)
    assert check_slots(None, databases=["default"]) == []


@pytest.mark.django_db
def test_the_sum_does_not_hide_what_is_wrong_with_the_settings(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """`migrate` with an impossible setting says that, and not a traceback."""
    monkeypatch.setitem(settings.DATABASES["default"], "CONN_MAX_AGE", 60)
    assert [each.id for each in registry.run_checks(databases=["default"])] == ["dbresilience.E001"]
