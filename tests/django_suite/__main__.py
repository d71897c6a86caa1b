"""Run Django's own test suite on dbresilience, in both lease modes, and on Django's backend: `make django-suite`.

The suite of the installed Django comes from its source distribution, by pip. Prints tests run, failed,
and failed on Django's backend too; exits 1 if anything failed that is not in `KNOWN`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import django

from .known import KNOWN
from .system_postgres import system_postgres

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "var" / "django-suite"
DJANGO = "Django's backend"
ENGINES = {
    DJANGO: '"ENGINE": "django.db.backends.postgresql"',
    "lease=transaction": '"ENGINE": "dbresilience"',
    "lease=request": '"ENGINE": "dbresilience", "OPTIONS": {"resilience": {"lease": "request"}}',
}
SETTINGS = """
DATABASES = {{
    alias: {{{engine}, "NAME": f"{short}_{{alias}}", "USER": "postgres", "HOST": "127.0.0.1", "PORT": "{port}"}}
    for alias in ("default", "other")
}}
SECRET_KEY = "only-for-testing"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""


@dataclass(frozen=True)
class Outcome:
    """One run of the suite."""

    ran: int
    seconds: float
    failed: frozenset[str]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.django_suite", description=__doc__)
    parser.add_argument("labels", nargs="*", help="parts of the suite (all)")
    parser.add_argument("--at-once", type=int, default=2, help="set-ups that run beside each other (2)")
    arguments = parser.parse_args()
    suite = fetch_source()
    with system_postgres() as port, ThreadPoolExecutor(arguments.at_once) as executor:
        begun = {
            name: executor.submit(run, suite, name, engine, port, arguments.labels) for name, engine in ENGINES.items()
        }
        outcomes = {name: running.result() for name, running in begun.items()}
    return report(outcomes)


def fetch_source() -> Path:
    """Return the folder `tests` of the installed Django's source, fetched once."""
    version = django.get_version()
    folder = CACHE / f"django-{version}" / "tests"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        download = ["download", "--quiet", "--no-deps", "--no-binary", "django", "--dest", str(CACHE)]
        subprocess.run([sys.executable, "-m", "pip", *download, f"django=={version}"], check=True)
        with tarfile.open(CACHE / f"django-{version}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder


def run(suite: Path, name: str, engine: str, port: int, labels: list[str]) -> Outcome:
    """Run the suite with these settings and read its outcome; everything it says is kept in a file.

    In one process: with several, a failure whose traceback cannot be pickled ends the whole run.
    """
    short = re.sub(r"\W+", "_", name).lower()
    (suite / f"suite_{short}.py").write_text(SETTINGS.format(engine=engine, port=port, short=short))
    log = CACHE / f"{short}.log"
    print(f"Django {django.get_version()} on {name}; see {log.relative_to(ROOT)}", flush=True)
    started = time.monotonic()
    with log.open("w") as said:
        subprocess.run(
            [sys.executable, "-W", "ignore", "runtests.py", f"--settings=suite_{short}", "--parallel=1", "--noinput",
             *labels],
            cwd=suite, stdout=said, stderr=subprocess.STDOUT, check=False,
            env={"PYTHONPATH": f"{suite}:{ROOT}", "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"},
        )  # fmt: skip
    text = log.read_text(errors="replace")
    ran = re.search(r"^Ran (\d+) tests? in", text, re.M)
    if ran is None:
        raise SystemExit(f"The suite did not finish; see {log}")
    failed = frozenset(re.findall(r"^(?:FAIL|ERROR): \w+ \(([\w.]+)[^)]*\)", text, re.M))
    return Outcome(int(ran[1]), time.monotonic() - started, failed)


def report(outcomes: dict[str, Outcome]) -> int:
    """Print the table and every difference; 1 if one is not known."""
    base = outcomes[DJANGO]
    print(f"\n| Django {django.get_version()} | tests run | failed | of these on Django's backend, too | seconds |")
    print("|---|---:|---:|---:|---:|")
    for name, outcome in outcomes.items():
        print(f"| {name} | {outcome.ran} | {len(outcome.failed)} | {len(outcome.failed & base.failed)} "
              f"| {outcome.seconds:.0f} |")  # fmt: skip
    unknown = 0
    for name, outcome in outcomes.items():
        for test in sorted(outcome.failed - base.failed):
            reason = next((why for known, why in KNOWN.items() if test.endswith(known)), None)
            unknown += reason is None
            print(f"\n{name}: {test}\n    {reason or 'NOT KNOWN'}")
    print(f"\n{unknown} differences that are not known.")
    return 1 if unknown else 0


if __name__ == "__main__":
    sys.exit(main())
