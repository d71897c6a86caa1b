"""Putting something around a function of Django's, once, however often it is installed and reloaded."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_MARK = "_dbresilience_wrapped"


def wrap_once(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replace the function `name` of `owner`, a class or a module, by what `make` returns for it.

    What was put around it before is not wrapped again but replaced.
    """
    original = getattr(owner, name)
    original = getattr(original, _MARK, original)
    wrapped = functools.wraps(original)(make(original))
    setattr(wrapped, _MARK, original)
    setattr(owner, name, wrapped)
