"""A function that is called as far as its query only, and again later, leaves no trace of the first time."""

from __future__ import annotations

from typing import Any

from .process import keep


class NotSentYet(BaseException):
    """Ends a function of which only the statement is wanted (see `gathering`); no error, so that nobody handles it."""


class Rehearsal:
    """What a wrapper was and what was told of its statements before the call.

    Args:
        wrapper: Django's, whose query the function makes.
    """

    def __init__(self, wrapper: Any) -> None:
        self._wrapper = wrapper
        self._needs_rollback, self._log = wrapper.needs_rollback, list(wrapper.queries_log)
        # Where the debug toolbar's SQL panel listens.
        self._panel = getattr(wrapper, "_djdt_logger", None)
        if self._panel is not None:
            wrapper._djdt_logger = self._listener = _Listener(self._panel)

    def end(self, *, counts: bool) -> None:
        """End the call; unless it `counts`, because the function came to its end, it has never been."""
        if self._panel is not None:
            self._wrapper._djdt_logger = self._panel
            if counts:
                self._listener.pass_on()
        if not counts:
            self._wrapper.needs_rollback = self._needs_rollback
            self._wrapper.queries_log.clear()
            self._wrapper.queries_log.extend(self._log)


class _Listener:
    """In the SQL panel's place, keeps what it would be told."""

    def __init__(self, panel: Any) -> None:
        self._panel = panel
        self._told: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._panel, name)

    def record(self, **statement: Any) -> None:
        self._told.append(statement)

    def pass_on(self) -> None:
        for statement in self._told:
            self._panel.record(**statement)


keep(globals(), "NotSentYet")
