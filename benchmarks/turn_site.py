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

DATABASE = json.loads(os.environ["BENCH_DATABASE"])
# Our application answers 503 for every backend; who compares wants to see what each does by itself.
OURS = ["dbresilience"] if DATABASE["ENGINE"] == "dbresilience" else []
settings.configure(
    DATABASES={"default": DATABASE},
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", *OURS],
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
from django.http import HttpRequest, HttpResponse, JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402

from dbresilience import gather, pipeline, signals  # noqa: E402

MODEL_SECONDS = float(os.environ["BENCH_MODEL_SECONDS"])
waits: list[float] = []


def note_wait(sender: str, wait_seconds: float, **details: Any) -> None:
    """Keep how long a connection was waited for."""
    waits.append(wait_seconds)


# Only where it is asked for: a receiver costs a call for each lease.
if os.environ.get("BENCH_WAITS"):
    signals.connection_acquired.connect(note_wait)


def waited(request: HttpRequest) -> JsonResponse:
    """The waits since the last time this was asked, in seconds."""
    taken = waits[:]
    del waits[: len(taken)]
    return JsonResponse({"waits": taken})


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


def turn_together(request: HttpRequest, number: int) -> HttpResponse:
    """The same with what dbresilience has for it: three round trips instead of nine."""
    (user,), groups = gather(User.objects.filter(pk=number), Group.objects.count)
    with pipeline():
        User.objects.filter(pk=number).update(first_name="asks")
    time.sleep(MODEL_SECONDS)
    with pipeline():
        User.objects.filter(pk=number).update(first_name="has its answer")
    return HttpResponse(f"{user.username} {groups}")


def look(request: HttpRequest, number: int) -> HttpResponse:
    """One query."""
    return HttpResponse(User.objects.get(pk=number).username)


urlpatterns: list[Any] = [
    path("turn/<int:number>", turn),
    path("together/<int:number>", turn_together),
    path("look/<int:number>", look),
    path("waited", waited),
]
application = WSGIHandler()
