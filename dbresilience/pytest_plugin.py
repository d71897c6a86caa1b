"""The pytest plugin: `testing` as fixtures and a marker. Installed with the package, so pytest finds it by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from .testing import assert_none_out, connections_out, failing_statement


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that holds for all tests."""
    parser.addini(
        "dbresilience_no_connection_out", "Fail every test that leaves a connection out.", type="bool", default=False
    )


def pytest_configure(config: pytest.Config) -> None:
    """Describe the marker."""
    config.addinivalue_line(
        "markers", "no_connection_out: fail the test if it leaves a connection of dbresilience's pool out."
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Look before the fixtures of the test end, which close what its own thread has left, and after."""
    looks = item.get_closest_marker("no_connection_out") or item.config.getini("dbresilience_no_connection_out")
    left = connections_out() if looks else []
    try:
        return (yield)
    finally:
        if looks:
            assert_none_out(left or connections_out())


@pytest.fixture
def fail_next_statement() -> Iterator[Callable[..., Callable[[], bool]]]:
    """``fail_next_statement("40001")``: see `failing_statement`; the test fails if no such statement was executed."""
    with ExitStack() as stack:

        def arm(sqlstate: str, *, alias: str = "default", matching: str = "") -> Callable[[], bool]:
            return stack.enter_context(failing_statement(sqlstate, alias=alias, matching=matching))

        yield arm


@pytest.fixture
def without_retries() -> Iterator[None]:
    """Nothing is done again by itself in this test, so that it sees the first error; see `dbresilience.no_retries`."""
    from dbresilience import no_retries

    with no_retries():
        yield
