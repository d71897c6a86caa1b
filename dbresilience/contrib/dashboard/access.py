"""Who may see the dashboard? The database says so; while it cannot be asked, the pass that it has led to."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from django.http import HttpRequest

from dbresilience import deadline
from dbresilience.errors import classify

from .outage_pass import has_pass

LONGEST_LOOK_SECONDS = 0.5
"""How long the dashboard waits for a connection and an answer: a full pool is what it is there to show."""


class Decision(Enum):
    """What became of the question."""

    GRANTED = "granted"
    REFUSED = "refused"
    BY_PASS = "by pass"


def access(request: HttpRequest, may_see: Callable[[HttpRequest], bool]) -> Decision:
    """Return whether this request may see the dashboard.

    Args:
        request: comes with a session, and perhaps with a pass.
        may_see: asks the database for the user of the request and for their permissions.

    Raises:
        Exception: whatever kept `may_see` from asking, if the request has no valid pass.
    """
    try:
        with deadline(LONGEST_LOOK_SECONDS):
            return Decision.GRANTED if may_see(request) else Decision.REFUSED
    except Exception as error:
        if classify(error).status is None or not has_pass(request):
            raise
    # What the session middleware does after the view would ask the database again.
    if hasattr(request, "session"):
        del request.session
    return Decision.BY_PASS
