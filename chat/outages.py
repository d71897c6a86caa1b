"""How work in the background tells of database errors: an outage in a line, a mistake of ours with its traceback."""

from __future__ import annotations

import logging

from dbresilience import classify


def note(logger: logging.Logger, error: BaseException, consequence: str) -> None:
    """Log what did not happen because of `error`, a database error that was caught.

    Args:
        consequence: a sentence for whoever runs the site, without a full stop.
    """
    verdict = classify(error)
    if verdict.status is None:
        logger.error("%s", consequence, exc_info=error)
    else:
        # Whoever watches the database has heard of it already, and there may be many who say so.
        logger.info("%s (%s)", consequence, verdict.name)
