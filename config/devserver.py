"""`make run`: PostgreSQL, migrations, a demo user, the web server and the worker, in the foreground until Ctrl-C.

This process loads no Django: it only starts others, watches them, and leaves nothing behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
# A crashed server is started again after so long: time enough to see what the site does without it.
RESTART_AFTER_SECONDS = 5.0
STOP_WITHIN_SECONDS = 10.0
PR_SET_PDEATHSIG = 1


class Stopped(Exception):
    """SIGINT or SIGTERM arrived."""


def main() -> int:
    began = time.monotonic()
    environment = {
        "DEBUG": "1",
        # Enough to watch a reply being written.
        "CHAT_AGENT_DELAY_SECONDS": "1",
        "WEB_GRACE_SECONDS": "5",
        "PORT": "8000",
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "PYTHONUNBUFFERED": "1",
    }
    for name, value in environment.items():
        # Empty counts as unset, as in the settings.
        os.environ[name] = os.environ.get(name) or value
    port = os.environ["PORT"]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)

    children: list[subprocess.Popen[bytes]] = []
    try:
        if reason := _port_problem(port):
            return _fail(reason)
        server = _postgres()
        _step("Migrations")
        prepared = _spawn("-m", "config.database", "prepare")
        children.append(prepared)
        if code := prepared.wait():
            return code
        children.remove(prepared)
        _step("Web server and worker")
        web = _spawn("-m", "gunicorn", "-c", "config/gunicorn.conf.py")
        children.append(web)
        children.append(_spawn("manage.py", "chat_worker"))
        url = f"http://127.0.0.1:{port}"
        if not _wait_for(web, url):
            return _fail("The web server did not start: the lines above say why.")
        _welcome(url, embedded=server is not None, seconds=time.monotonic() - began)
        return _watch(web, children, server)
    except Stopped:
        print("\nStopping …", flush=True)
        return 0
    finally:
        _end(children)


def _postgres() -> Path | None:
    """Start the embedded server, or say which one is used instead; its folder if it is the embedded one."""
    if os.environ.get("DATABASE_URL"):
        _step("PostgreSQL of DATABASE_URL")
        return None
    from config.startup import embedded_database, embedded_folder

    _step("PostgreSQL, embedded")
    embedded_database(embedded_folder())
    return embedded_folder()


def _watch(web: subprocess.Popen[bytes], children: list[subprocess.Popen[bytes]], server: Path | None) -> int:
    """Until a signal comes: start again what crashed, end when the web server ends."""
    from config import embedded
    from config.postgres import PostgresError, PostgresServer

    crashed_at: float | None = None
    while web.poll() is None:
        time.sleep(0.5)
        for number, child in enumerate(children):
            if child is not web and child.poll() is not None:
                print(f"The worker ended with code {child.returncode}; starting it again.", file=sys.stderr, flush=True)
                time.sleep(2)
                children[number] = _spawn("manage.py", "chat_worker")
        if server is None or not PostgresServer(server).has_crashed():
            crashed_at = None
            continue
        if crashed_at is None:
            crashed_at = time.monotonic()
            print(f"PostgreSQL crashed; it starts again in {RESTART_AFTER_SECONDS:g} s.", file=sys.stderr, flush=True)
        elif time.monotonic() - crashed_at > RESTART_AFTER_SECONDS:
            try:
                embedded.restart_if_crashed(server)
                print("PostgreSQL runs again.", file=sys.stderr, flush=True)
            except PostgresError as exc:
                print(exc, file=sys.stderr, flush=True)
            crashed_at = None
    return _fail(f"The web server ended with code {web.returncode}.")


def _spawn(*arguments: str) -> subprocess.Popen[bytes]:
    # A group of its own: Ctrl-C reaches only us, and we stop the others in good order.
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, process_group=0, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent
    )


def _die_with_parent() -> None:
    """If we are killed outright, the kernel stops our children (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for child in children:
        if child.poll() is None:
            child.terminate()
    deadline = time.monotonic() + STOP_WITHIN_SECONDS
    for child in children:
        try:
            child.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _wait_for(web: subprocess.Popen[bytes], url: str) -> bool:
    while web.poll() is None:
        try:
            urllib.request.urlopen(f"{url}/livez", timeout=5).close()
            return True
        except urllib.error.HTTPError as exc:
            exc.close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


def _port_problem(port: str) -> str | None:
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return f"PORT is {port!r}: it must be a number from 1 to 65535."
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(port)))
        except OSError as exc:
            return f"Port {port} is taken ({exc.strerror}): stop what uses it, or choose another: make run PORT=8001"
    return None


def _welcome(url: str, *, embedded: bool, seconds: float) -> None:
    lines = [f"Ready after {seconds:.1f} s: {url}"]
    if embedded:
        lines += [
            "  Log in as demo, password demo. The admin is at /admin/.",
            "  Break it: `make db-stop` in another terminal, and `make db-start` to mend it.",
        ]
    print("\n".join(["", *lines, "  Ctrl-C stops everything.", ""]), flush=True)


def _step(text: str) -> None:
    print(f"• {text} …", flush=True)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _fail(reason: str) -> int:
    print(reason, file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
