"""A site of one view, a chat turn reduced to its connection: look up the user, store, wait for a model, store.

Served by gunicorn for `turns`; BENCH_DATABASE is its database as JSON, BENCH_MODEL_SECONDS what the model takes.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": json.loads(os.environ["BENCH_DATABASE"])},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "dbresilience"],
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    SECRET_KEY="only-for-measuring",
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import Group, User  # noqa: E402  # models need settings
from django.core.handlers.wsgi import WSGIHandler  # noqa: E402
from django.db import transaction  # noqa: E402
from django.http import HttpRequest, HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

MODEL_SECONDS = float(os.environ["BENCH_MODEL_SECONDS"])


def turn(request: HttpRequest, number: int) -> HttpResponse:
    """One turn of user `number`."""
    user = User.objects.get(pk=number)
    with transaction.atomic():
        User.objects.filter(pk=number).update(first_name="asks")
        groups = Group.objects.count()
    time.sleep(MODEL_SECONDS)
    with transaction.atomic():
        User.objects.filter(pk=number).update(first_name="has its answer")
    return HttpResponse(f"{user.username} {groups}")


urlpatterns: list[Any] = [path("turn/<int:number>", turn)]
application = WSGIHandler()
