"""What a request costs in instructions: the same in every run, whatever else the machine does. Needs valgrind.

Counted in user space, so system calls are not in it: ours makes one more, a look at the socket before each lease,
of about a microsecond. Nor is what other threads do, such as to report each second, which would depend on how slow
valgrind makes everything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from .setups import BASELINE, Settings

FEW, MANY = 50, 250
PROGRAM = """
import gc, os, sys, json
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])}, USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "dbresilience"])
import django; django.setup()
from benchmarks import queries
work = queries.KINDS[sys.argv[2]]
def request():
    with queries.request("default"):
        work("default", 1)
for _ in range(30): request()
gc.collect(); gc.freeze()
for _ in range(int(sys.argv[3])): request()
os._exit(0)
"""


def measure(compared: dict[str, Settings], kinds: list[str]) -> str | None:
    """Return the table, or None where there is no valgrind."""
    if shutil.which("valgrind") is None:
        return None
    lines = [f"| thousand instructions | {' | '.join(kinds)} |", "|---" + "|---:" * len(kinds) + "|"]
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        found = {
            name: list(executor.map(lambda kind, database=database: _cost(database, kind), kinds))
            for name, database in compared.items()
        }
    for name, costs in found.items():
        cells = [f"{cost / 1000:.0f} ({cost / base:.3f})" for cost, base in zip(costs, found[BASELINE], strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cost(database: Settings, kind: str) -> float:
    few, many = (_count(database, kind, requests) for requests in (FEW, MANY))
    return (many - few) / (MANY - FEW)


def _count(database: Settings, kind: str, requests: int) -> int:
    program = [sys.executable, "-c", PROGRAM, json.dumps(database), kind, str(requests)]
    with TemporaryDirectory() as folder:
        subprocess.run(
            ["valgrind", "--tool=callgrind", "--separate-threads=yes", f"--callgrind-out-file={folder}/of", *program],
            env=os.environ | {"PYTHONHASHSEED": "1"}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = Path(folder, "of-01").read_text()
    counted = re.search(r"^totals: (\d+)", found, re.MULTILINE)
    assert counted is not None, found[-1000:]
    return int(counted[1])
