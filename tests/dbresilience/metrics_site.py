"""A site whose requests use the database in ways that a client can count: settings and URLs for a real gunicorn."""

from __future__ import annotations

import os
import time

from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from config.startup import url_database

SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "tests.dbresilience.metrics_site"
INSTALLED_APPS = ["dbresilience"]
MIDDLEWARE = ["dbresilience.middleware.ProbeMiddleware"]
DATABASES = {"default": url_database(os.environ["DATABASE_URL"], engine="dbresilience")}
DBRESILIENCE_METRICS_ACCESS = os.environ.get("METRICS_ACCESS", "open")
USE_TZ = True


def one(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("VALUES (1)")
    return HttpResponse(str(os.getpid()))


def two(request: HttpRequest) -> HttpResponse:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("VALUES (1)")
        cursor.execute("SHOW server_version")
    return HttpResponse(str(os.getpid()))


def hold(request: HttpRequest, number: int) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.execute("VALUES (1)")
        time.sleep(number / 10)
    return HttpResponse(str(os.getpid()))


urlpatterns = [path("one", one), path("two", two), path("hold/<int:number>", hold)]
