"""`make run` as a test starts it: a process, its output, its database."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

from tests.settings import BASE_DIR
from tests.support.postgres import wait_until
from tests.support.site import site_environment


class Devserver:
    def __init__(self, var: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.output = var / f"output-{port}"
        self._environment = site_environment(VAR_DIR=str(var), PORT=str(port))
        # What `make run` decides is under test, not what other tests prefer.
        for name in ("HOST", "SECRET_KEY", "ALLOWED_HOSTS", "WEB_CONCURRENCY", "WEB_GRACE_SECONDS"):
            del self._environment[name]
        with open(self.output, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "config.devserver"],
                cwd=BASE_DIR,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_ready(self) -> None:
        wait_until(lambda: "Ready after" in self.said or self.process.poll() is not None, timeout_seconds=40)
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self.output.read_text()

    def database(self, action: str) -> str:
        command = [sys.executable, "-m", "config.database", action]
        done = subprocess.run(command, cwd=BASE_DIR, env=self._environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(self.url + path, timeout=20) as response:
                return int(response.status)
        except urllib.error.HTTPError as exc:
            exc.close()
            return exc.code
