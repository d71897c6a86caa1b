"""Doing what a finding or a system check says: its line is pasted, and the backend takes it."""

from __future__ import annotations

import ast
import re
from typing import Any

from config.startup import url_database
from dbresilience.conf import Configuration


def paste(line: str) -> dict[str, Any]:
    """The OPTIONS that the lines of a finding make; what they say for a URL means the same."""
    databases: dict[str, Any] = {}
    for entry, alias, in_url in re.findall(
        r'"OPTIONS": (\{.+?\}) in DATABASES\["(\w+)"\](?:, or (\S+) in its URL)?', line
    ):
        databases[alias] = ast.literal_eval(entry)
        if in_url:
            parsed = url_database(f"postgresql://h/n?{in_url}", engine="dbresilience")
            pasted = {"OPTIONS": databases[alias]}
            read = [Configuration.from_settings("x", each, debug=False) for each in (parsed, pasted)]
            assert read[0] == read[1]
        Configuration.from_settings(alias, {"OPTIONS": databases[alias]}, debug=False)
    return databases
