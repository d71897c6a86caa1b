"""ASGI entry point: `WEB_WORKER_CLASS=asgi gunicorn`."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application

from config.startup import load_urls, require_hosts

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_asgi_application()
require_hosts()
load_urls()
