"""Every setting of the site, from the environment, in the order one asks about them: the database first."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import django

from config.environment import Env, refuse
from config.logs import logging_config
from config.serving import DEBUG
from config.startup import (
    backend,
    development_secret_key,
    embedded_database,
    embedded_folder,
    url_database,
    var_folder,
)
from dbresilience import __version__
from dbresilience.scraping import Access

BASE_DIR = Path(__file__).resolve().parent.parent
env = Env()

VAR_DIR = var_folder()

# --- Database ---------------------------------------------------------------------------------------------------------

# `django.db.backends.postgresql` here is the way back: nothing else changes.
DATABASE_ENGINE = backend(env.str("DATABASE_ENGINE", default="dbresilience"))

if env.str("DATABASE_URL", default=""):
    DATABASES = {"default": url_database(env.str("DATABASE_URL"), engine=DATABASE_ENGINE)}
elif DEBUG:
    DATABASES = {"default": {"ENGINE": DATABASE_ENGINE, **embedded_database(embedded_folder())}}
else:
    refuse(
        "DATABASE_URL is not set: give a PostgreSQL URL such as postgresql://user:password@host/name,"
        " or set DEBUG=1 to use the server of `make run`."
    )

if DATABASE_ENGINE == "dbresilience":
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("warm_up_with", "chat.warming.ask_as_a_request_would")

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Security ---------------------------------------------------------------------------------------------------------

SECRET_KEY = env.str("SECRET_KEY", default="")
if not SECRET_KEY:
    if not DEBUG:
        refuse("SECRET_KEY is not set: give a long random string, the same for every process of the site.")
    SECRET_KEY = development_secret_key(VAR_DIR / "secret_key")

ALLOWED_HOSTS = env.hosts("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"] if DEBUG else [])
CSRF_TRUSTED_ORIGINS = env.origins("CSRF_TRUSTED_ORIGINS")

# A site that people reach by https says so with its trusted origins; its cookies must not travel in clear text.
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = any(origin.startswith("https://") for origin in CSRF_TRUSTED_ORIGINS)
SESSION_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"

# --- Applications -----------------------------------------------------------------------------------------------------

# Django has its own Tasks API from 6.0 on.
TASKS_FROM_PACKAGE = django.VERSION < (6, 0)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "rest_framework",
    "rest_framework.authtoken",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    *(["django_tasks"] if TASKS_FROM_PACKAGE else []),
    "django_tasks_db",
    "dbresilience",
    "chat",
]

MIDDLEWARE = [
    # The probes answer before anything that could fail, whatever Host header they come with.
    "dbresilience.middleware.ProbeMiddleware",
    "dbresilience.middleware.RequestContextMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

TOOLBAR_INSTALLED = find_spec("debug_toolbar") is not None
DEBUG_TOOLBAR = env.flag("DEBUG_TOOLBAR", default=DEBUG and TOOLBAR_INSTALLED)
if DEBUG_TOOLBAR and not TOOLBAR_INSTALLED:
    refuse("DEBUG_TOOLBAR is on, but the toolbar is not there: pip install django-debug-toolbar, or unset it.")
if DEBUG_TOOLBAR:
    INSTALLED_APPS.append("debug_toolbar")
    # The toolbar keeps the last 25 requests; before this one, the static files of a page would be some of them.
    after_static_files = MIDDLEWARE.index("whitenoise.middleware.WhiteNoiseMiddleware") + 1
    MIDDLEWARE.insert(after_static_files, "debug_toolbar.middleware.DebugToolbarMiddleware")
    from debug_toolbar.settings import PANELS_DEFAULTS

    after_sql = PANELS_DEFAULTS.index("debug_toolbar.panels.sql.SQLPanel") + 1
    DEBUG_TOOLBAR_PANELS = PANELS_DEFAULTS.copy()
    DEBUG_TOOLBAR_PANELS.insert(after_sql, "dbresilience.contrib.toolbar.ConnectionsPanel")
# Closed until somebody wants it: open, it covers the page's buttons.
DEBUG_TOOLBAR_CONFIG = {"SHOW_COLLAPSED": True}
INTERNAL_IPS = ["127.0.0.1", "::1"]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
# The API has no trailing slashes; what has one (admin, accounts) is redirected to it.
APPEND_SLASH = True

# --- Pages ------------------------------------------------------------------------------------------------------------

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "config" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

STATIC_URL = "static/"
STATIC_ROOT = VAR_DIR / "static"
# Collected files are compressed and cached for ever. Without `collectstatic` the site serves them all the same.
COLLECTED = not DEBUG and ("collectstatic" in sys.argv or (STATIC_ROOT / "staticfiles.json").exists())
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if COLLECTED
        else "django.contrib.staticfiles.storage.StaticFilesStorage",
    },
}
WHITENOISE_USE_FINDERS = not COLLECTED
WHITENOISE_AUTOREFRESH = DEBUG
if not COLLECTED:
    # whitenoise warns about a folder that is not there.
    with suppress(OSError):
        STATIC_ROOT.mkdir(parents=True, exist_ok=True)

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True

# --- API --------------------------------------------------------------------------------------------------------------

# Who may come in, and in which form, is in `chat.api.base`; a rate that is None is the one in `chat.api.throttles`.
REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_THROTTLE_RATES": {"chat": env.rate("CHAT_RATE"), "token": env.rate("CHAT_TOKEN_RATE")},
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}

SPECTACULAR_SETTINGS = {
    "TITLE": "Chat",
    "DESCRIPTION": "An assistant with threads, streamed replies and tool calls, on a database that may go away.",
    "VERSION": __version__,
    "SERVE_INCLUDE_SCHEMA": False,
    # The same for everybody, so nobody is looked up for it, and an outage does not take it away.
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "MessageStatus": "chat.models.Message.Status",
        "ToolCallStatus": "chat.models.ToolCall.Status",
    },
}

# --- Chat -------------------------------------------------------------------------------------------------------------

CHAT_AGENT = env.word("CHAT_AGENT", ["offline", "openai"], default="offline")
CHAT_AGENT_DELAY_SECONDS = env.seconds("CHAT_AGENT_DELAY_SECONDS", default=0.0)
CHAT_MODEL = env.str("CHAT_MODEL", default="gpt-5-mini")
OPENAI_BASE_URL = env.web_address("OPENAI_BASE_URL")
OPENAI_API_KEY = env.str("OPENAI_API_KEY", default="")
# Threads not touched for so many days are deleted by the worker; None keeps them for ever.
CHAT_RETENTION_DAYS = env.whole(
    "CHAT_RETENTION_DAYS", default=None, minimum=1, maximum=36500, hint="Unset it to keep threads for ever."
)

if CHAT_AGENT == "openai" and not (OPENAI_API_KEY or OPENAI_BASE_URL):
    refuse("OPENAI_API_KEY is not set: CHAT_AGENT=openai needs it, or OPENAI_BASE_URL of a server that wants no key.")

# --- Metrics ----------------------------------------------------------------------------------------------------------

DBRESILIENCE_METRICS_ACCESS, _, DBRESILIENCE_METRICS_TOKEN = env.str(
    "METRICS_ACCESS", default="open" if DEBUG else "closed"
).partition(":")
if Access.of(DBRESILIENCE_METRICS_ACCESS, DBRESILIENCE_METRICS_TOKEN) is None:
    refuse("METRICS_ACCESS is not understood: it must be closed, open, or token: and a token without spaces.")
if not env.str("PROMETHEUS_MULTIPROC_DIR", default=""):
    # For prometheus_client an empty one would be a folder.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

# --- Background work --------------------------------------------------------------------------------------------------

TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}

# --- Logging ----------------------------------------------------------------------------------------------------------

LOGGING = logging_config(
    readable=DEBUG,
    loggers={
        # Django mails errors to ADMINS and hides its log without DEBUG; one stream of lines is easier to operate.
        "django": {"handlers": [], "level": "INFO", "propagate": True},
        "dbresilience": {"level": "INFO"},
        "chat": {"level": "INFO"},
        # All it warns of is that it was told to stop, with advice for a terminal.
        "django_tasks_db": {"level": "ERROR"},
        # It warns of each HEAD request that Django answers as a GET, which is how Django answers all of them.
        "gunicorn.http.wsgi": {"level": "ERROR"},
    },
)
