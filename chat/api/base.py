"""What every endpoint has in common: who may come in, what is read, and how errors are told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.csrf import csrf_exempt
from rest_framework.authentication import SessionAuthentication, TokenAuthentication
from rest_framework.permissions import IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView

from chat.api.parsers import LimitedJSONParser
from chat.api.problems import problem, problem_for


class ChatAPIView(APIView):
    # Set here and not in the settings, so that the API keeps its promises in any project. (No docstring: the schema
    # would show it as every endpoint's description.)

    # The token first: its answer to strangers is a 401, which says how to come in.
    authentication_classes = [TokenAuthentication, SessionAuthentication]
    permission_classes = [IsAuthenticated]
    parser_classes = [LimitedJSONParser]
    renderer_classes = [JSONRenderer]

    def get_exception_handler(self) -> Callable[[Exception, dict[str, Any]], Response | None]:
        return problem_for


@method_decorator(csrf_exempt, name="dispatch")  # else a stranger would be told of a cookie, and not of the mistake
class NothingHere(View):
    """Every other address below /api/: a problem, where Django would send a page."""

    def dispatch(self, request: HttpRequest, *args: object, **kwargs: object) -> HttpResponse:
        return problem(status=404, detail=f"There is nothing at {request.path}; see /api/docs.")
