"""Times come back as Django's own loader gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.test import override_settings
from psycopg.pq import Format

from dbresilience.timestamps import TimestampLoader

if TYPE_CHECKING:
    from .conftest import MakeWrapper

TEXT = "2026-07-08 09:10:11.000012+02"
INSTANT = datetime(2026, 7, 8, 7, 10, 11, 12, tzinfo=UTC)


def asked(wrapper: Any, text: str = TEXT) -> datetime:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT %s::timestamptz", [text])
        value = cursor.fetchone()[0]
    assert isinstance(value, datetime)
    return value


@override_settings(USE_TZ=True)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Asia/Kathmandu"])
def test_in_the_time_zone_of_the_database(make_wrapper: MakeWrapper, zone: str) -> None:
    wrapper = make_wrapper()
    wrapper.settings_dict["TIME_ZONE"] = zone

    found = asked(wrapper)

    assert (found, found.tzinfo) == (INSTANT, ZoneInfo(zone))


@override_settings(USE_TZ=True)
def test_in_utc_if_none_is_set(make_wrapper: MakeWrapper) -> None:
    found = asked(make_wrapper())

    assert (found, found.tzinfo) == (INSTANT, UTC)


@override_settings(USE_TZ=True)
def test_in_utc_by_psycopg_alone_unless_the_session_is_elsewhere(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    with wrapper.pinned():
        for zone, is_psycopgs in (("UTC", True), ("Asia/Kathmandu", False), ("UTC", True)):
            with wrapper.cursor() as cursor:
                cursor.execute(f"SET TIME ZONE '{zone}'")
                cursor.execute("SELECT %s::timestamptz", [TEXT])
                [(found,)] = cursor.fetchall()
                loader = cursor.cursor._tx.get_loader(psycopg.postgres.types["timestamptz"].oid, Format.TEXT)
            assert isinstance(loader, TimestampLoader) is not is_psycopgs
            assert found.tzinfo is UTC
            assert found == INSTANT or not is_psycopgs  # Django takes the session to be in the program's zone


def test_in_the_zone_of_the_program_without_a_connection() -> None:
    kind = type("InUtc", (TimestampLoader,), {"timezone": UTC})
    assert kind(psycopg.postgres.types["timestamptz"].oid).load(TEXT.encode()) == INSTANT


@override_settings(USE_TZ=False, TIME_ZONE="Asia/Kathmandu")
def test_in_that_of_the_settings_and_without_one_if_django_uses_none(make_wrapper: MakeWrapper) -> None:
    assert asked(make_wrapper()) == INSTANT.astimezone(ZoneInfo("Asia/Kathmandu")).replace(tzinfo=None)


def test_what_python_cannot_hold_is_an_error(make_wrapper: MakeWrapper) -> None:
    with pytest.raises(Exception, match="year 10K"):
        asked(make_wrapper(), "20260-01-01 00:00:00+00")


def test_psycopg_reads_them(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    with wrapper.cursor():
        assert wrapper.connection is not None
        loader = wrapper.connection.adapters.get_loader(psycopg.postgres.types["timestamptz"].oid, Format.TEXT)

    assert loader is not None
    assert issubclass(loader, TimestampLoader)
