"""`/metrics`: what Prometheus reads, closed to everybody unless `DBRESILIENCE_METRICS_ACCESS` says who may.

Opens no connection. Mounted by `middleware.ProbeMiddleware`, or as a view in a URLconf.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare

SETTING = "DBRESILIENCE_METRICS_ACCESS"
CLOSED = "closed"
OPEN = "open"
_TOKEN = re.compile(r"token:([\x21-\x7e]+)")
"""What can stand in a header after ``Bearer``."""


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read the metrics.

    Attributes:
        is_open: whether anybody may.
        token: the bearer token of those who may, if only they may.
    """

    is_open: bool = False
    token: str | None = None

    @classmethod
    def of(cls, given: object) -> Access | None:
        """Understand ``closed``, ``open`` or ``token:<secret>``; None if it is none of these."""
        if given == CLOSED:
            return cls()
        if given == OPEN:
            return cls(is_open=True)
        match = _TOKEN.fullmatch(given) if isinstance(given, str) else None
        return cls(token=match[1]) if match else None

    @classmethod
    def from_settings(cls) -> Access:
        """Read the setting; closed without it.

        Raises:
            ImproperlyConfigured: it is not one of those, or there is nothing to show.
        """
        access = cls.of(getattr(settings, SETTING, CLOSED))
        if access is None:
            # Its value may be a secret with a mistake in it.
            raise ImproperlyConfigured(f"{SETTING} must be 'closed', 'open' or 'token:' and a token without spaces.")
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
