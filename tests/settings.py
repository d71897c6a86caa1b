"""The site's settings, as the tests want them: nothing from the developer's environment, a server of their own."""

from __future__ import annotations

import os

from tests.places import BASE_DIR as BASE_DIR
from tests.places import TEST_VAR_DIR

OURS = {"ALLOWED_HOSTS", "CSRF_TRUSTED_ORIGINS", "WEB_WORKER_CLASS", "WEB_CONCURRENCY", "HOST", "PORT",
        "METRICS_ACCESS", "PROMETHEUS_MULTIPROC_DIR"}  # fmt: skip
for name in [name for name in os.environ if name in OURS or name.startswith(("CHAT_", "OPENAI_"))]:
    del os.environ[name]
os.environ |= {"DEBUG": "1", "DEBUG_TOOLBAR": "0", "SECRET_KEY": "only-for-tests", "VAR_DIR": str(TEST_VAR_DIR)}

if not os.environ.get("DATABASE_URL"):
    from config import embedded

    # Test data may be lost: no waiting for the disk.
    embedded.join(
        TEST_VAR_DIR / "postgres",
        database="chat",
        options={"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"},
    )

from config.settings import *  # noqa: E402, F403

# Hashing passwords well takes longer than most tests.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

# `TEST_POOL_MAX_SIZE=1 make test ARGS=tests/chat` shows that nothing in the chat needs two connections at once.
if most := os.environ.get("TEST_POOL_MAX_SIZE"):
    DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"max_size": int(most)}  # noqa: F405
