"""Where passwords come from."""

from __future__ import annotations

from collections.abc import Iterator

from dbresilience.aliases import Alias
from dbresilience.credentials import imported, read_file
from dbresilience.errors import PasswordUnavailable

from .rules import Mistake, alias_check


@alias_check("dbresilience.W001")
def check_password_places(alias: Alias) -> Iterator[Mistake]:
    """the function or the file that the password is read from is not there, or is empty."""
    configuration = alias.configuration
    try:
        if isinstance(configuration.password, str):
            imported(configuration.password, f"{alias.where}: OPTIONS['resilience']['password']")
        if configuration.password_file is not None:
            read_file(configuration.password_file, f"{alias.where}: password_file")
    except PasswordUnavailable as error:
        yield Mistake(str(error), "Nothing can connect until it is there; then no restart is needed.")


@alias_check("dbresilience.W003")
def check_expiring_password(alias: Alias) -> Iterator[Mistake]:
    """a password that is a token of a cloud, which expires while the process lives."""
    password = alias.given.get("PASSWORD")
    if isinstance(password, str) and ("X-Amz-Signature=" in password or password.startswith("eyJ")):
        yield Mistake(
            f"{alias.where}: PASSWORD is a token, made when the settings were read. It expires within minutes or "
            "hours, and from then on no new connection is let in.",
            f"{alias.option('resilience', 'password', 'shop.tokens.fresh')}: the function that makes it, called for "
            "each connection; and remove PASSWORD",
        )


CHECKS = (check_password_places, check_expiring_password)
