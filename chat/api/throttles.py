"""How often one user may ask and one address may try passwords; the rates are settings."""

from __future__ import annotations

from typing import Any

from rest_framework.request import Request
from rest_framework.settings import api_settings
from rest_framework.throttling import SimpleRateThrottle, UserRateThrottle


class _RateOfSettings(SimpleRateThrottle):
    default_rate: str

    def get_rate(self) -> str:
        # Read for each request: a class attribute would keep the rates of the first import.
        return api_settings.DEFAULT_THROTTLE_RATES.get(self.scope) or self.default_rate


class ChatThrottle(_RateOfSettings, UserRateThrottle):
    scope = "chat"
    default_rate = "300/min"


class TokenThrottle(_RateOfSettings):
    scope = "token"
    default_rate = "120/min"

    def get_cache_key(self, request: Request, view: Any) -> str:
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}

    def get_ident(self, request: Request) -> str:
        # X-Forwarded-For is whatever a client says, unless the settings say how many proxies wrote into it.
        if api_settings.NUM_PROXIES is None:
            return request.META.get("REMOTE_ADDR", "")
        return super().get_ident(request)
