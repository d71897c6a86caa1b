"""A suite for Django's own runner, run by test_test_databases.py with `--parallel`."""

from __future__ import annotations

import threading

from django.contrib.auth.models import Group
from django.db import connections
from django.test import LiveServerTestCase, TestCase, TransactionTestCase


class InOneTransaction(TestCase):
    def test_it(self) -> None:
        Group.objects.create(name="a")
        assert Group.objects.count() == 1
        assert connections["default"].connection is not None


class WithoutTransaction(TransactionTestCase):
    def test_threads(self) -> None:
        Group.objects.create(name="a")
        counts: list[int] = []
        threads = [threading.Thread(target=lambda: counts.append(Group.objects.count())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert counts == [1] * 4


class WithALiveServer(LiveServerTestCase):
    def test_it(self) -> None:
        assert self.live_server_url


def tearDownModule() -> None:
    """A copied alias has a pool of its own, which nobody closes."""
    copy = connections["default"].copy(alias="copied")
    # Receivers of connection_created look their connection up by its alias.
    connections.settings["copied"] = copy.settings_dict
    connections["copied"] = copy
    with copy.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert copy.resources.snapshot().idle == 1
