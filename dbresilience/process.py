"""What belongs to the process and not to a module: it stays the same when a module is executed again.

Hot reload, notebooks and `importlib.reload` run a module a second time. What others refer to already must not be made
anew then: who catches an exception has its old class, who listens has the old signal.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from functools import partial
from typing import Any

_NAME = "_dbresilience_process"


def of_process(name: str, create: Callable[[], Any]) -> Any:
    """Return what this process has under `name`; `create` makes it the first time."""
    # A module of its own name, since this one may be executed again, too, or imported anew.
    state = sys.modules.get(_NAME) or sys.modules.setdefault(_NAME, types.ModuleType(_NAME))
    if name not in state.__dict__:
        state.__dict__.setdefault(name, create())
    return state.__dict__[name]


def is_under_test() -> bool:
    """Whether Django's test environment is set up, as its own runner and pytest-django do first of all."""
    testing = sys.modules.get("django.test.utils")
    return testing is not None and hasattr(testing._TestState, "saved_data")


def keep(namespace: dict[str, Any], *names: str) -> None:
    """Let `names` of a module be what they were when it was executed first; its last line.

    Args:
        namespace: the module's ``globals()``.
        names: what others import and compare by identity: exceptions, signals, context variables, constants.
    """
    for name in names:
        namespace[name] = of_process(f"{namespace['__name__']}.{name}", partial(namespace.get, name))
