"""The password of a database, read anew for each physical connection: from a function or a file.

So a password that changes while the application runs needs no restart. When it changes there is a
moment in which only one of the two sides knows the new one. A password that is refused (SQLSTATE
28P01 or 28000) is therefore read once more, and if it is the same still, the last one that was accepted is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from .errors import PasswordUnavailable

if TYPE_CHECKING:
    from .conf import Configuration

# The second is what PostgreSQL says for PAM and LDAP, which the tokens of cloud providers go through.
_REFUSED = ("28P01", "28000")

Session = TypeVar("Session")


class PasswordSource:
    """Where the password of one alias comes from. Its repr, and its errors, never hold the password.

    Args:
        setting: names the source in errors, e.g. ``DATABASES['default']: PASSWORD``.
        read: returns the password.
    """

    def __init__(self, setting: str, read: Callable[[], Any]) -> None:
        self.setting = setting
        self._read = read
        self._accepted: str | None = None

    def __repr__(self) -> str:
        return f"<PasswordSource {self.setting}>"

    def read(self) -> str:
        """Return the password of this moment.

        Raises:
            PasswordUnavailable: there is none; the text names the setting, the cause is attached.
        """
        try:
            password = self._read()
        except PasswordUnavailable:
            raise
        except Exception as error:
            raise self.unavailable(f"raised {type(error).__name__}") from error
        if not isinstance(password, str):
            raise self.unavailable(f"returned {type(password).__name__}; it must return a str")
        if not password or "\0" in password:
            raise self.unavailable("gave a password with a NUL character" if password else "gave an empty password")
        return password

    def unavailable(self, what: str) -> PasswordUnavailable:
        """Return an error that names the setting."""
        return PasswordUnavailable(f"{self.setting} {what}.")

    def connect(self, connect: Callable[..., Session]) -> Session:
        """Call ``connect(password=…)``; if the password is refused, read it again and connect once more.

        One that is still the same is not sent again, unless the last one that was accepted proves to be
        over, too: then the server has changed its mind between the two.
        """
        password = self.read()
        try:
            return self._try(connect, password)
        except psycopg.OperationalError as refusal:
            if not _refuses_password(refusal):
                raise
            before, now = self._accepted, self.read()
            if now == password and before in (None, password):
                raise
        if now == password and before is not None:
            try:
                return self._try(connect, before)
            except psycopg.OperationalError as refusal:
                if not _refuses_password(refusal):
                    raise
        return self._try(connect, now)

    def _try(self, connect: Callable[..., Session], password: str) -> Session:
        session = connect(password=password)
        self._accepted = password
        return session


def connect_with(source: PasswordSource | None, connect: Callable[..., Session]) -> Session:
    """Call `connect`, with the password of `source` if there is one."""
    return connect() if source is None else source.connect(connect)


def password_source(
    alias: str, settings_dict: Mapping[str, Any], configuration: Configuration
) -> PasswordSource | None:
    """Return where the password of an alias is read; None if PASSWORD is the password, or there is none."""
    if callable(settings_dict.get("PASSWORD")):
        return PasswordSource(f"DATABASES[{alias!r}]: PASSWORD", settings_dict["PASSWORD"])
    if configuration.password is not None:
        given = configuration.password
        setting = f"DATABASES[{alias!r}]: OPTIONS['resilience']['password']"
        return PasswordSource(setting, given if callable(given) else lambda: imported(given, setting)())
    if configuration.password_file is not None:
        path, setting = configuration.password_file, f"DATABASES[{alias!r}]: password_file"
        return PasswordSource(setting, lambda: read_file(path, setting))
    return None


def resolved(alias: str, settings_dict: dict[str, Any], configuration: Configuration) -> dict[str, Any]:
    """Return a copy of an alias's settings with the password itself, for programs that are told it once."""
    source = password_source(alias, settings_dict, configuration)
    return settings_dict if source is None else {**settings_dict, "PASSWORD": source.read()}


def imported(path: str, setting: str) -> Callable[[], Any]:
    """Return the function that a dotted path names.

    Raises:
        PasswordUnavailable: nothing of that name can be imported, or it is no function.
    """
    name, _, attribute = path.rpartition(".")
    try:
        found = getattr(import_module(name), attribute, None)
    except ImportError as error:
        # What is not there may be a password that stands where a path should, so it is not shown.
        absent = isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}.")
        raise PasswordUnavailable(f"{setting} names a module that cannot be imported.") from None if absent else error
    if not callable(found):
        raise PasswordUnavailable(f"{setting} names nothing in its module that can be called.")
    return found  # type: ignore[no-any-return]


def read_file(path: str, setting: str) -> str:
    """Return the text of a file without the line break at its end.

    Raises:
        PasswordUnavailable: it cannot be read, or is empty.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise PasswordUnavailable(f"{setting} cannot be read: {error.strerror or type(error).__name__}.") from error
    except ValueError:
        raise PasswordUnavailable(f"{setting} is not a text in UTF-8.") from None
    if not (password := text.rstrip("\r\n")):
        raise PasswordUnavailable(f"{setting} is empty.")
    return password


def _refuses_password(error: psycopg.OperationalError) -> bool:
    if error.sqlstate is not None:
        return error.sqlstate in _REFUSED
    # Without a code libpq knows at least that the server asked for a password. To offer another one then
    # costs an attempt, and there is another one only if it has changed.
    return error.pgconn is not None and error.pgconn.used_password
