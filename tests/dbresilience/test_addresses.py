"""addresses.py: an error text says why, and not where."""

from __future__ import annotations

import pytest

from dbresilience.addresses import without_addresses


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (
            'connection to server at "db.example.com" (10.0.0.3), port 5432 failed: timeout at 12:34:56',
            'connection to server at "<host>" (<address>), port 5432 failed: timeout at 12:34:56',
        ),
        (
            'connection to server at "db" (fe80::1), port 1 failed',
            'connection to server at "<host>" (<address>), port 1 failed',
        ),
        (
            "- host: 'db', port: '1', hostaddr: '10.0.0.3': failed",
            "- host: \"<host>\", port: '1', hostaddr: '<address>': failed",
        ),
        ("failed to resolve host 'db': unknown", 'failed to resolve host "<host>": unknown'),
        ('database "db.example.com" does not exist: a: b', 'database "db.example.com" does not exist: a: b'),
        ('no pg_hba.conf entry for host "10.0.0.3", user "u"', 'no pg_hba.conf entry for host "<host>", user "u"'),
    ],
)
def test_only_addresses_are_taken_out(said: str, kept: str) -> None:
    """Times, database names and the reason stay."""
    assert without_addresses(said) == kept
