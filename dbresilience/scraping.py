"""`/metrics`: what Prometheus reads, closed to everybody unless `DBRESILIENCE_METRICS_ACCESS` says who may.

Opens no connection. Mounted by `middleware.ProbeMiddleware`, or as a view in a URLconf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

SETTING = "DBRESILIENCE_METRICS_ACCESS"
TOKEN_SETTING = "DBRESILIENCE_METRICS_TOKEN"
"""A setting of its own, with a name by which Django keeps its value out of error pages and mails."""
CLOSED = "closed"
OPEN = "open"
TOKEN = "token"
_TOKEN = re.compile(r"[\x21-\x7e]+")
"""What can stand in a header after ``Bearer``."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read the metrics.

    Attributes:
        is_open: whether anybody may.
        token: the bearer token of those who may, if only they may.
    """

    is_open: bool = False
    token: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, given: object, token: object) -> Access | None:
        """Understand ``closed``, ``open``, or ``token`` and the token; None if it is none of these."""
        if given == CLOSED and not token:
            return cls()
        if given == OPEN and not token:
            return cls(is_open=True)
        if given == TOKEN and isinstance(token, str) and _TOKEN.fullmatch(token):
            return cls(token=token)
        return None

    @classmethod
    def from_settings(cls) -> Access:
        """Read the settings; closed without them.

        Raises:
            ImproperlyConfigured: they are not one of those, or there is nothing to show.
        """
        access = cls.of(getattr(settings, SETTING, CLOSED), getattr(settings, TOKEN_SETTING, None))
        if access is None:
            raise ImproperlyConfigured(
                f"{SETTING} must be 'closed' or 'open', without a {TOKEN_SETTING}; or 'token', with one that has no "
                "spaces."
            )
        if access != cls() and find_spec("prometheus_client") is None:
            raise ImproperlyConfigured(
                f"{SETTING} lets metrics be read, but prometheus-client is not installed: "
                "pip install 'dbresilience[prometheus]', or unset it."
            )
        return access


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer with all metrics in the format that was asked for; 404 while it is closed, 401 without the token."""
    access = Access.from_settings()
    if access.token is not None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not constant_time_compare(token.strip(), access.token):
            return _as_probe(HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"}))
    elif not access.is_open:
        return _as_probe(HttpResponse(status=404))
    from prometheus_client.exposition import choose_encoder

    from .metrics import shared_registry

    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return _as_probe(HttpResponse(encode(shared_registry()), content_type=content_type))


def _as_probe(response: HttpResponse) -> HttpResponse:
    response["Cache-Control"] = "no-store"
    # The answer to a probe is its result, not an error of the site.
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def install() -> None:
    """Begin to record for what is installed, Prometheus or OpenTelemetry. Repeating it is harmless.

    Raises:
        ImproperlyConfigured: `DBRESILIENCE_METRICS_ACCESS` or `PROMETHEUS_MULTIPROC_DIR` cannot be used.
    """
    Access.from_settings()
    if find_spec("prometheus_client") is not None:
        from . import metrics as prometheus

        prometheus.install()
    if _has_opentelemetry():
        from . import __version__, telemetry

        telemetry.install(__version__)


def _has_opentelemetry() -> bool:
    try:
        return find_spec("opentelemetry.metrics") is not None
    except ModuleNotFoundError:
        return False
