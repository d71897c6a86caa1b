"""A view in a terminal that is drawn anew once a second, until Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, TextIO

from .status_text import event_lines, status_lines

EVERY_SECONDS = 1.0

# The other screen, as an editor uses it: what was in the terminal is there again afterwards.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


def watch(look: Callable[[], dict[str, Any]], out: TextIO) -> None:
    """Draw what `look` returns until KeyboardInterrupt; leaves the terminal as it was."""
    with _other_screen(out):
        for facts in repeatedly(look):
            out.write(_screen(facts, *shutil.get_terminal_size()))
            out.flush()


def repeatedly(look: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Return what `look` finds, once a second without end."""
    at = monotonic()
    while True:
        yield look()
        # Where a look has taken longer than that, the next one does not follow at once.
        at = max(at + EVERY_SECONDS, monotonic() + 0.1)
        sleep(at - monotonic())


@contextmanager
def _other_screen(out: TextIO) -> Iterator[None]:
    # What ends the process in another way than Ctrl-C must not leave a terminal without a cursor either.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    out.write(_ENTER)
    try:
        yield
    finally:
        out.write(_LEAVE)
        out.flush()
        signal.signal(signal.SIGTERM, before)


def _screen(facts: dict[str, Any], columns: int, rows: int) -> str:
    lines = status_lines(facts, width=columns, colours=True)
    room = rows - len(lines) - 3
    if room > 0 and facts["events"]:
        lines += ["", *event_lines(facts, width=columns, most=room)]
    lines = [*lines[: rows - 1], "Ctrl-C ends."[:columns]]
    return _HOME + "\r\n".join(line + _CLEAR_LINE for line in lines) + _CLEAR_REST
