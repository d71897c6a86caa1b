"""Make `.venv` and install into it what the given requirements files say; at once if that is done already.

Runs before anything is installed, so it uses the standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"


def main(names: list[str]) -> int:
    wanted = {name: _fingerprint(ROOT / name) for name in names}
    if _works() and all(_stamp(name).exists() and _stamp(name).read_text() == wanted[name] for name in names):
        return 0
    (ROOT / "var").mkdir(exist_ok=True)
    with open(ROOT / "var" / "prepare.lock", "a") as lock:
        # Two terminals may ask at the same moment; the second finds everything done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _works():
            _say(f"Making .venv with Python {platform.python_version()} …")
            made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], capture_output=True, text=True)
            if made.returncode or not _works():
                return _fail(_why_no_venv(made.stdout + made.stderr))
        missing = [name for name in names if not _stamp(name).exists() or _stamp(name).read_text() != wanted[name]]
        if missing and (code := _install(names)):
            return code
        for name in missing:
            _stamp(name).write_text(wanted[name])
    return 0


def _install(names: list[str]) -> int:
    arguments = [argument for name in names for argument in ("-r", str(ROOT / name))]
    total = sum(bool(re.match(r"[A-Za-z]", line)) for name in names for line in (ROOT / name).read_text().splitlines())
    _say(f"Installing about {total} packages of {' and '.join(names)}; the first time takes half a minute or so.")
    command = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    assert process.stdout
    lines: list[str] = []
    done = 0
    for line in process.stdout:
        lines.append(line)
        if found := re.match(r"Collecting (\S+)", line):
            done += 1
            _progress(done, total, re.split(r"[=<>!\[;]", found[1])[0])
        elif line.startswith("Installing collected"):
            _progress(total, total, "unpacking …", last=True)
    if process.wait():
        # The end of what pip says names the package and the reason.
        return _fail("".join(["\n", *lines[-12:], "pip failed: see above. `make` tries again from where it stopped."]))
    return 0


def _progress(done: int, total: int, name: str, *, last: bool = False) -> None:
    text = f"  {min(done, total):3d}/{total} {name}"
    if sys.stdout.isatty():
        print(f"\r{text:<60}", end="\n" if last else "", flush=True)
    elif last or done % 10 == 0:
        print(text, flush=True)


def _works() -> bool:
    if not PYTHON.exists():
        return False
    return subprocess.run([str(PYTHON), "-c", "import pip"], capture_output=True).returncode == 0


def _why_no_venv(output: str) -> str:
    if "ensurepip" in output:
        return "This Python has no ensurepip: install its venv package (Debian, Ubuntu: apt-get install python3-venv)."
    return f"Could not make {VENV}: {' '.join(output.split()[-30:])}"


def _stamp(name: str) -> Path:
    return VENV / f".installed-{name}"


def _fingerprint(path: Path) -> str:
    text = path.read_text() + os.fspath(VENV)
    return hashlib.sha256(text.encode()).hexdigest()


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(reason: str) -> int:
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
