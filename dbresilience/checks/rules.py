"""How a rule about one alias, or about the site, becomes a system check."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from django.core.checks import CheckMessage, Error, Warning

from dbresilience.aliases import Alias, every_alias


class Mistake(NamedTuple):
    """What is wrong, with its numbers, and the line that mends it."""

    found: str
    hint: str


Rule = Callable[[Alias], Iterable[Mistake]]


class Check:
    """A system check of one id.

    Args:
        identity: its id.
        describes: the function whose docstring says what it finds.
        messages: looks, and returns the mistakes.
        deploy: whether it runs with ``check --deploy`` only.
        of: for one alias, what it finds there; None if it looks at the site as a whole.
    """

    def __init__(
        self,
        identity: str,
        describes: Callable[..., object],
        look: Callable[[], Iterable[Mistake]],
        *,
        deploy: bool = False,
        of: Rule | None = None,
    ) -> None:
        self.id = identity
        self.deploy = deploy
        self.of = of
        self.__name__ = describes.__name__
        self.__doc__ = describes.__doc__
        self._look = look

    def __call__(self, app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
        """Return Django's messages."""
        return [message(self.id, mistake) for mistake in self._look()]


def message(identity: str, mistake: Mistake) -> CheckMessage:
    """Return Django's message: an error if the id says so, else a warning."""
    kind = Error if ".E" in identity else Warning
    return kind(mistake.found, hint=mistake.hint, id=identity)


def _is_ours(alias: Alias) -> bool:
    return alias.is_ours


def alias_check(
    identity: str, *, deploy: bool = False, only: Callable[[Alias], bool] = _is_ours
) -> Callable[[Rule], Check]:
    """Make a check of a rule for one alias.

    Args:
        identity: its id.
        deploy: whether it runs with ``check --deploy`` only.
        only: which aliases it is for.
    """

    def decorate(rule: Rule) -> Check:
        def of(alias: Alias) -> Iterable[Mistake]:
            return rule(alias) if only(alias) else ()

        def look() -> Iterable[Mistake]:
            return (mistake for alias in every_alias() for mistake in of(alias))

        return Check(identity, rule, look, deploy=deploy, of=of)

    return decorate


def site_check(identity: str, *, deploy: bool = False) -> Callable[[Callable[[], Iterable[Mistake]]], Check]:
    """Make a check of a rule for the site as a whole.

    Args:
        identity: as in ``SILENCED_SYSTEM_CHECKS``.
        deploy: whether it runs with ``check --deploy`` only.
    """
    return lambda rule: Check(identity, rule, rule, deploy=deploy)
