"""How the site is served. gunicorn's settings read it, and Django's do, so that a wrong value stops either."""

from __future__ import annotations

import os

from config.environment import Env, refuse

env = Env()

DEBUG = env.flag("DEBUG", default=False)

# Everything but a developer's own machine is reached from outside.
HOST = env.str("HOST", default="127.0.0.1" if DEBUG else "0.0.0.0")
PORT = env.whole("PORT", default=8000, minimum=1, maximum=65535)

WORKER_CLASS = env.word("WEB_WORKER_CLASS", ["gthread", "asgi"], default="gthread")
if os.environ.get("WEB_CONCURRENCY") == "":
    refuse("WEB_CONCURRENCY is empty: gunicorn itself reads it too and needs a number; give one, or unset it.")
PROCESSES = env.whole("WEB_CONCURRENCY", default=1 if DEBUG else 2, minimum=1)
# A streamed reply holds its thread, not a connection: threads may well outnumber the pool.
THREADS = env.whole("WEB_THREADS", default=64, minimum=1)
GRACE_SECONDS = env.whole("WEB_GRACE_SECONDS", default=30, minimum=1)
