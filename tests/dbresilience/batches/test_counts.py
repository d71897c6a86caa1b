"""counts.py: the count of an update() that waits."""

from __future__ import annotations

import copy
import numbers
import pickle
from decimal import Decimal
from fractions import Fraction

from dbresilience import pipeline
from dbresilience.base import DatabaseWrapper
from dbresilience.counts import DeferredCount
from tests.dbresilience.batches.programs import key
from tests.dbresilience.batches.rows import create, owners
from tests.dbresilience.batches.tables import Owner
from tests.support.proxy import Proxy


def test_a_count_is_the_number_that_it_is(ours: DatabaseWrapper) -> None:
    with pipeline(using=ours.alias):
        owners(ours).bulk_create([Owner(id=key(number), name=str(number)) for number in range(3)])
        count = owners(ours).update(points=1)
        assert (count == 3, count == 3, count != 3, count > 2, count < 4) == (True, True, False, True, True)
        assert (count + 1, 1 + count, count - 1, 7 - count, count * 2, 7 // count, count % 2) == (4, 4, 2, 4, 6, 2, 1)
        assert (str(count), f"{count}", f"{count:03d}", f"{count:d}", repr(count)) == ("3", "3", "003", "3", "3")
        assert (list(range(count)), sum([count, count]), max(count, 2), hash(count)) == ([0, 1, 2], 6, 3, hash(3))
        assert ("abcd"[count], divmod(count, 2), count**2, -count, count & 1, count << 1) == ("d", (1, 1), 9, -3, 1, 6)
        assert (count == 3.0, count < 3.5, count + 0.5, 0.5 * count, count in [3.0]) == (True, True, 3.5, 1.5, True)
        assert (count * Decimal("2"), Decimal("7") - count, count / Fraction(1, 2)) == (6, 4, 6)
        assert (sorted([count, 2.5]), min(count, 0.5)) == ([2.5, 3], 0.5)
        assert (count.real, count.bit_length(), count.to_bytes(1, "big")) == (3, 2, b"\x03")
        assert isinstance(count, numbers.Integral)
        assert {count: "three"}[3] == "three"  # type: ignore[index]
        assert pickle.loads(pickle.dumps(count)) == copy.deepcopy(count) == 3
        assert not owners(ours).filter(name="nobody").update(points=1)
        assert not owners(ours).none().update(points=1)


def test_a_count_may_be_looked_at_after_the_end(far: DatabaseWrapper, proxy: Proxy) -> None:
    with pipeline(using=far.alias):
        create(far, 1)
        count = owners(far).update(points=1)
    before = proxy.round_trips
    assert count == 1
    assert proxy.round_trips == before


def test_who_looks_what_it_is_sends_nothing(far: DatabaseWrapper, proxy: Proxy) -> None:
    with pipeline(using=far.alias):
        count = owners(far).update(points=1)
        before = proxy.round_trips
        assert not hasattr(count, "resolve_expression")
        assert not hasattr(DeferredCount.__new__(DeferredCount), "_cursor")
        assert proxy.round_trips == before
