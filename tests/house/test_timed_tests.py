"""A test that asserts how long something takes is tried again when it was too slow, and for no other reason."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.places import BASE_DIR

# What fails, and the tries it has.
CASES = {
    "assert [3.1, 2.2, 0.1][tries - 1] < 1": 3,
    "assert [3.1, 2.2, 1.3][tries - 1] <= 0.5": 3,
    "assert 0.1 < [3.1, 0.2][tries - 1] < 0.5": 2,
    "assert 3e-5 / tries < 2e-5": 2,
    "raise AssertionError('it did not happen within 0.3 s')": 3,
    "assert {200, 500} == {200}": 1,
    "assert 3 <= 2": 1,
    "assert 'lost' == ''": 1,
    "raise RuntimeError('an outcome nobody knows')": 1,
}
TEST = """
import collections, pathlib, pytest
tries_of = collections.Counter()

@pytest.mark.timed
@pytest.mark.parametrize("case", range({cases}))
def test_it(case):
    tries_of[case] += 1
    pathlib.Path(__file__).with_suffix(".tries").write_text(repr(dict(tries_of)))
    functions[case](tries_of[case])

"""


def test_only_who_was_too_slow_is_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "test_cases.py"
    functions = [f"def case_{number}(tries):\n    {body}\n" for number, body in enumerate(CASES)]
    names = ", ".join(f"case_{number}" for number in range(len(CASES)))
    file.write_text(TEST.format(cases=len(CASES)) + "\n".join(functions) + f"functions = [{names}]\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = timed\n")
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_collection_modifyitems\n")
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(tmp_path / "pytest.ini"), str(file)],
        env={"PYTHONPATH": str(BASE_DIR)},
        capture_output=True,
        timeout=60,
    )
    tries = ast.literal_eval(file.with_suffix(".tries").read_text())
    assert dict(zip(CASES, tries.values(), strict=True)) == CASES
