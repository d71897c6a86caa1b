"""looking_again.py: a process that nobody asks finds out that the database is back."""

from __future__ import annotations

import time

import pytest
from django.db import OperationalError

from dbresilience import looking_again
from tests.dbresilience.conftest import MakeWrapper, run, wait_for_probes
from tests.support.postgres import ThrowawayPostgres, wait_until


@pytest.mark.parametrize(("options", "state"), [({}, "closed"), ({"scale_to_zero": True}, "open")])
def test_the_breaker_of_an_idle_process(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool],
    state: str,
) -> None:  # fmt: skip
    """Closes without a question of anybody's; not in a process that is to be silent."""
    monkeypatch.setattr(looking_again, "EVERY_SECONDS", 0.2)
    wrapper = make_wrapper(resilience=options)
    run(wrapper, "SELECT 1")
    postgres.stop()
    with pytest.raises(OperationalError):
        run(wrapper, "SELECT 1")
    assert wrapper.resources.snapshot().breaker == "open"
    wait_for_probes(wrapper)
    postgres.start()
    time.sleep(2.5)
    if state == "closed":
        wait_until(lambda: wrapper.resources.snapshot().breaker == "closed")
    assert wrapper.resources.snapshot().breaker == state
    assert run(wrapper, "SELECT 1") == [(1,)]


def test_it_opens_no_pool_that_was_closed(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the master's of `gunicorn --preload`, which began while the database was away."""
    monkeypatch.setattr(looking_again, "EVERY_SECONDS", 0.2)
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    postgres.stop()
    with pytest.raises(OperationalError):
        run(wrapper, "SELECT 1")
    wrapper.resources.close()
    postgres.start()
    wait_until(lambda: wrapper.resources.snapshot().breaker == "closed")
    wait_until(lambda: postgres.backends(wrapper.settings_dict["NAME"]) == 0)
    assert run(wrapper, "SELECT 1") == [(1,)]


def test_it_looks_rarely(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    postgres.stop()
    try:
        with pytest.raises(OperationalError):
            run(wrapper, "SELECT 1")
        time.sleep(1)
        before = wrapper.resources.snapshot().connect_failures_total
        time.sleep(6)
        assert wrapper.resources.snapshot().connect_failures_total - before <= 2
    finally:
        postgres.start()
