"""What a process asks before anybody asks it (`warm_up_with`): a list of threads, for somebody who has none."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpRequest
from django.urls import reverse
from rest_framework.authtoken.models import Token


def ask_as_a_request_would() -> None:
    """Go the way of a first request, through middleware, view and serializers, so that all of it is made once.

    Raises:
        DatabaseError: the database cannot be asked.
    """
    request = HttpRequest()
    request.method = "GET"
    request.path = request.path_info = reverse("threads")
    # A host of the site's own, else it would be refused, with a line in the log.
    host = settings.ALLOWED_HOSTS[0].strip(".*") if settings.ALLOWED_HOSTS else ""
    request.META |= {"SERVER_NAME": host or "localhost", "SERVER_PORT": "80"}
    # The framework's own way past its log-in.
    request._force_auth_user = get_user_model()(pk=-1)  # type: ignore[attr-defined]
    response = WSGIHandler().get_response(request)
    if response.status_code >= 500:
        raise RuntimeError(f"The chat answered its first question with {response.status_code}.")
    Token.objects.select_related("user").filter(key="").first()
