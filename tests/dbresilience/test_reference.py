"""docs/reference: the pages say what the code says."""

from __future__ import annotations

import importlib.util

import pytest

from tests.settings import BASE_DIR

FOLDER = BASE_DIR / "docs" / "reference"
_spec = importlib.util.spec_from_file_location("generate_reference", FOLDER / "generate.py")
assert _spec is not None
assert _spec.loader is not None
generate = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(generate)


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_page_is_what_the_code_would_write(name: str) -> None:
    """After a change: python docs/reference/generate.py."""
    assert (FOLDER / name).read_text() == generate.PAGES[name]()
