"""The site under a real gunicorn, started and stopped by a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import urllib.error
import urllib.request

from tests.places import BASE_DIR, TEST_VAR_DIR
from tests.support.ports import free_port

# What a site of a test inherits; the rest of the developer's environment stays outside.
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "DATABASE_ENGINE")


def site_environment(**variables: str) -> dict[str, str]:
    """A production-like environment, with `variables` on top."""
    return (
        {name: os.environ[name] for name in INHERITED if name in os.environ}
        | {
            "SECRET_KEY": "only-for-tests",
            "ALLOWED_HOSTS": "localhost,127.0.0.1",
            "WEB_CONCURRENCY": "1",
            "WEB_GRACE_SECONDS": "6",
            "HOST": "127.0.0.1",
            "PYTHONUNBUFFERED": "1",
            "VAR_DIR": str(TEST_VAR_DIR),
        }
        | variables
    )


class Site:
    """`with Site(database_url) as site:` serves on `site.url`; `site.log` is what the server has written."""

    def __init__(
        self, database_url: str, *, worker_class: str = "gthread", port: int | None = None, **env: str
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        if most := os.environ.get("TEST_POOL_MAX_SIZE"):
            database_url += f"{'&' if '?' in database_url else '?'}pool_max_size={most}"
        self._environment = site_environment(
            DATABASE_URL=database_url, WEB_WORKER_CLASS=worker_class, PORT=str(self.port), **env
        )
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Site:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop()
        if error is not None:
            print(f"--- what the site at {self.url} wrote ---\n{self.log}")
        self._output.close()

    @property
    def log(self) -> str:
        with open(f"/proc/self/fd/{self._output.fileno()}") as output:
            return output.read()

    def start(self, *, timeout_seconds: float = 30) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-c", "config/gunicorn.conf.py"],
            cwd=BASE_DIR,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + timeout_seconds
        while not self.answers("/livez"):
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise AssertionError(f"The site did not start:\n{self.log}")
            time.sleep(0.05)

    def answers(self, path: str) -> bool:
        """True if anything speaks HTTP there, whatever it says."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5):
                return True
        except urllib.error.HTTPError as exc:
            exc.close()
            return True
        except OSError:
            return False

    def status(self, path: str, *, token: str | None = None) -> int:
        """Ask, and return the status of the answer."""
        headers = {"Authorization": f"Token {token}"} if token else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, headers=headers), timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code

    def stop(self, number: signal.Signals = signal.SIGTERM, *, timeout_seconds: float = 15) -> int | None:
        """End the server; the exit code, or None if it had to be killed."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None


def manage(*arguments: str, database_url: str, **env: str) -> str:
    """Run `manage.py` against a database; what it printed."""
    done = subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=BASE_DIR,
        env=site_environment(DATABASE_URL=database_url, **env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"manage.py {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


def run_python(code: str, database_url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run code in a Django process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "import django; django.setup()\n" + textwrap.dedent(code)],
        cwd=BASE_DIR,
        env=site_environment(DATABASE_URL=database_url, DJANGO_SETTINGS_MODULE="config.settings", **variables),
        capture_output=True,
        text=True,
        timeout=30,
    )  # fmt: skip
