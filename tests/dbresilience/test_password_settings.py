"""credentials.py: where settings may say that a password comes from."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from dbresilience.checks.passwords import check_password_places
from dbresilience.conf import Configuration


def raises() -> str:
    raise AssertionError("It is not asked while settings are read.")


def read(settings: dict[str, Any]) -> Configuration:
    return Configuration.from_settings("default", settings, debug=False)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"PASSWORD": "x", "OPTIONS": {"password_file": "/run/x"}}, "password_file and by PASSWORD"),
        ({"PASSWORD": "x", "OPTIONS": {"resilience": {"password": raises}}}, "'password'.* and by PASSWORD"),
        ({"OPTIONS": {"resilience": {"password": raises, "password_file": "/run/x"}}}, "and by password_file"),
        ({"OPTIONS": {"password": "x", "password_file": "/run/x"}}, r"password_file and by OPTIONS\['password'\]"),
        ({"PASSWORD": raises, "OPTIONS": {"password": "x"}}, r"PASSWORD and by OPTIONS\['password'\]"),
    ],
)
def test_two_places_are_one_too_many(settings: dict[str, Any], named: str) -> None:
    """Which of them is meant is not for us to guess."""
    with pytest.raises(ImproperlyConfigured, match=named):
        read(settings)


@pytest.mark.parametrize("options", [{"password_file": "/nowhere/x"}, {"resilience": {"password": "os.no_such"}}])
def test_a_place_that_is_not_there_is_told_beforehand(
    options: dict[str, Any], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`manage.py check` warns; a build, which has no secrets, is not stopped."""
    assert check_password_places(None) == []
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", options)
    (warning,) = check_password_places(None)
    assert warning.id == "dbresilience.W001"
    assert "DATABASES['default']: " in warning.msg


@pytest.mark.parametrize("value", ["my secret", "secret", 5, "", "a.b-c"])
def test_a_password_where_a_function_should_be_is_not_shown(value: Any) -> None:
    """The error names the option, not what it has."""
    if value == "":
        assert read({"OPTIONS": {"resilience": {"password": value}}}).password is None
        return
    with pytest.raises(ImproperlyConfigured) as caught:
        read({"OPTIONS": {"resilience": {"password": value}}})
    assert "OPTIONS['resilience']['password']" in str(caught.value)
    assert repr(value) not in str(caught.value)
