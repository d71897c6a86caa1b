"""conf.py: options from dicts and URLs, each mistake named."""

from __future__ import annotations

from typing import Any

import environ
import pytest
from django.core.exceptions import ImproperlyConfigured

from dbresilience.conf import Configuration
from dbresilience.options import OPTIONS


def read(options: dict[str, Any] | None = None, *, debug: bool = False) -> Configuration:
    return Configuration.from_settings("default", {"OPTIONS": options or {}}, debug=debug)


def read_url(query: str) -> Configuration:
    return read(environ.Env.db_url_config(f"postgresql://u:p@h/n?{query}")["OPTIONS"])


def test_defaults_need_no_options() -> None:
    """ENGINE alone is enough."""
    configuration = read()
    assert configuration.pooled
    assert (configuration.max_size, configuration.timeout, configuration.lease) == (10, 10.0, "transaction")


@pytest.mark.parametrize(("debug", "threshold"), [(True, 0.2), (False, 1.0)])
def test_the_slow_query_threshold_follows_debug(debug: bool, threshold: float) -> None:
    """0.2 s in development, 1 s in production."""
    assert read(debug=debug).slow_query_seconds == threshold


@pytest.mark.parametrize("word", ["True", "true", "1", "yes", True, {}])
def test_pool_may_be_switched_on_by_any_usual_word(word: Any) -> None:
    """django-environ gives the string "True" for ?pool=True."""
    assert read({"pool": word}).pooled


@pytest.mark.parametrize("word", ["False", "false", "0", "off", False])
def test_pool_may_be_switched_off_by_any_usual_word(word: Any) -> None:
    """The string "false" is not truth."""
    assert not read({"pool": word}).pooled


def test_names_of_djangos_own_pool_carry_over() -> None:
    """Existing settings go on working."""
    configuration = read({"pool": {"min_size": 2, "max_size": 4, "timeout": 3, "max_lifetime": 60}})
    assert configuration.pool_arguments() == {
        "min_size": 2, "max_size": 4, "timeout": 3.0, "max_lifetime": 60.0, "max_waiting": 0,
        "max_idle": 600.0, "reconnect_timeout": 300.0, "num_workers": 3,
        "check": None, "reset": None, "reconnect_failed": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("pool", "max_size"),
    [({}, 10), ({"max_size": None}, 10), ({"min_size": 3, "max_size": None}, 3), ({"min_size": 12}, 12)],
)
def test_a_size_left_open_fits_the_minimum(pool: dict[str, Any], max_size: int) -> None:
    """psycopg_pool's None is "as min_size"; the default never is below it."""
    assert read({"pool": pool}).max_size == max_size


@pytest.mark.parametrize(
    ("query", "field", "value"),
    [
        ("connection_limit=7", "max_size", 7),
        ("pool_max_size=7", "max_size", 7),
        ("pool_min_size=2", "min_size", 2),
        ("pool_timeout=2.5", "timeout", 2.5),
        ("connect_timeout=3", "connect_timeout_seconds", 3.0),
        ("lease=request", "lease", "request"),
        ('pool={"max_size": 3}', "max_size", 3),
        ("pool=True", "pooled", True),
        ("pool=false", "pooled", False),
        ("slow_query_seconds=none", "slow_query_seconds", None),
    ],
)
def test_a_url_says_the_same(query: str, field: str, value: object) -> None:
    """Sizes and time-outs from the URL, as django-environ 0.14 reads it."""
    assert getattr(read_url(query), field) == value


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"pool": {"max_sise": 3}}, "max_sise"),
        ({"pool": {"max_size": 0}}, "max_size"),
        ({"pool": {"max_size": "many"}}, "max_size"),
        ({"pool": {"max_size": 2.5}}, "max_size"),
        ({"pool": {"max_size": True}}, "max_size"),
        ({"pool": {"min_size": 5, "max_size": 2}}, "min_size"),
        ({"pool": {"timeout": -1}}, "timeout"),
        ({"pool": {"check": "yes"}}, "check"),
        ({"pool": {"close_returns": True}}, "close_returns"),
        ({"pool": {"timeout": float("nan")}}, "timeout"),
        ({"pool": "perhaps"}, "pool"),
        ({"pool": "{not json"}, "pool"),
        ({"resilience": {"lease": "query"}}, "lease"),
        ({"resilience": {"no_such": 1}}, "no_such"),
        ({"resilience": 3}, "resilience"),
        ({"resiliance": {}}, "Did you mean 'resilience'"),
        ({"aplication_name": "x"}, "Did you mean 'application_name'"),
        ({"target_session_attrs": "readwrite"}, "target_session_attrs"),
        ({"max_size": 3}, "has no option 'max_size'"),
        ({"connect_timeout": 1}, "expected 2 seconds or more"),
        ({"pool": {"min_size": float("inf")}}, "min_size"),
        ({"pool": {"max_size": 3}, "connection_limit": 4}, "connection_limit"),
    ],
)
def test_a_mistake_stops_the_start_and_names_the_option(options: dict[str, Any], named: str) -> None:
    """Nothing is corrected silently."""
    with pytest.raises(ImproperlyConfigured, match=named) as caught:
        read(options)
    assert "DATABASES['default']" in str(caught.value)


def test_options_of_django_psycopg_and_libpq_are_known() -> None:
    """Whatever Django's own backend takes."""
    read({"assume_role": "x", "sslmode": "require", "application_name": "x", "options": "-c x=y",
          "prepare_threshold": None, "target_session_attrs": "read-write", "service": "x"})  # fmt: skip


def test_settings_are_not_changed_by_reading_them() -> None:
    """Another process or test may read the same dict."""
    options = {"pool": {"max_size": 3}, "pool_timeout": "4"}
    read(options)
    assert options == {"pool": {"max_size": 3}, "pool_timeout": "4"}


def test_every_option_has_a_place_in_the_configuration() -> None:
    """The table is the truth; a field without a row would be undocumented."""
    assert {option.name for option in OPTIONS} | {"pooled"} == set(Configuration.__dataclass_fields__)
