"""A small project on disk, served by whatever starts anew when one of its files is saved."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.places import BASE_DIR
from tests.support.ports import free_port
from tests.support.site import site_environment

POOL_SIZE = 5

_FILES = {
    "manage.py": """
import sys
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
""",
    "project_settings.py": f"""
import environ
ALLOWED_HOSTS = ["127.0.0.1"]
DEBUG = True
SECRET_KEY = "only-for-tests"
INSTALLED_APPS = EXTRA_APPS + ["django.contrib.auth", "django.contrib.contenttypes", "dbresilience"]
MIDDLEWARE = ["dbresilience.middleware.ProbeMiddleware", "dbresilience.middleware.RequestContextMiddleware"]
ROOT_URLCONF = "project_urls"
DATABASES = {{"default": environ.Env().db_url("DATABASE_URL", engine="dbresilience")}}
DATABASES["default"].setdefault("OPTIONS", {{}})["pool"] = {{"max_size": {POOL_SIZE}, "timeout": 5}}
USE_TZ = True
""",
    "project_urls.py": """
import os
import project_words
from django.contrib.auth.models import User
from django.db import connection
from django.http import JsonResponse
from django.urls import path

def quick(request):
    return JsonResponse({"pid": os.getpid(), "users": User.objects.count()})

def slow(request):
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s)", [request.GET["seconds"]])
    return JsonResponse({"pid": os.getpid()})

urlpatterns = [path("", quick), path("slow", slow)]
""",
    "project_words.py": "",
    "project_wsgi.py": """
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
""",
    "project_asgi.py": """
from django.core.asgi import get_asgi_application
application = get_asgi_application()
""",
}


def _commands(port: int) -> dict[str, list[str]]:
    address = f"127.0.0.1:{port}"
    return {
        "runserver": ["manage.py", "runserver", address],
        "django-watchfiles": ["manage.py", "runserver", address],
        "watchfiles": [
            "-m", "watchfiles", "--filter", "python",
            f"{sys.executable} manage.py runserver --noreload {address}", ".",
        ],
        "gunicorn": [
            "-m", "gunicorn", "project_wsgi:application", "--bind", address, "--reload", "--threads", "8",
            "--log-level", "warning", "--no-control-socket", "--graceful-timeout", "5",
        ],
        "uvicorn": [
            "-m", "uvicorn", "project_asgi:application", "--host", "127.0.0.1", "--port", str(port), "--reload",
            "--log-level", "warning",
        ],
    }  # fmt: skip


SERVERS = tuple(_commands(0))


class Project:
    """`with Project(database_url, "runserver") as project:` serves it on `project.url`."""

    def __init__(self, database_url: str, server: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._server = server
        self._folder = Path(tempfile.mkdtemp(prefix="saves-"))
        extra = ["django_watchfiles"] if server == "django-watchfiles" else []
        for name, text in _FILES.items():
            (self._folder / name).write_text(text.lstrip().replace("EXTRA_APPS", repr(extra)))
        self._environment = site_environment(
            DATABASE_URL=database_url, DJANGO_SETTINGS_MODULE="project_settings", PYTHONPATH=str(BASE_DIR)
        )
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115

    def __enter__(self) -> Project:
        self._process = subprocess.Popen(
            [sys.executable, *_commands(self.port)[self._server]],
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop()
        if error is not None:
            print(self.log)
        self._output.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> str:
        with open(f"/proc/self/fd/{self._output.fileno()}") as output:
            return output.read()

    def save(self) -> None:
        """Change a module that every process of it has imported."""
        changed = self._folder / "project_words.py"
        changed.write_text(f"saved_at = {time.time()}\n")
        # Else two saves within a tick of the file system's clock look like one.
        os.utime(changed, ns=(time.time_ns(), time.time_ns()))

    def stop(self) -> int | None:
        """End it as Ctrl-C does; the exit code, or None if it had to be killed."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGINT)
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            return None
