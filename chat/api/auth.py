"""A token for a name and a password."""

from __future__ import annotations

from django.contrib.auth import authenticate
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework.authtoken.models import Token
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from chat.api import serializers
from chat.api.base import ChatAPIView
from chat.api.schema import problems
from chat.api.throttles import TokenThrottle


class TokenView(ChatAPIView):
    authentication_classes = []
    permission_classes = []
    throttle_classes = [TokenThrottle]

    @extend_schema(
        operation_id="get_token",
        summary="A token for `Authorization: Token …`",
        auth=[],
        request=serializers.TokenRequest,
        responses={200: serializers.TokenAnswer, **problems(400, 413, 415, 429)},
    )
    def post(self, request: Request) -> HttpResponse:
        asked = serializers.TokenRequest(data=request.data)
        asked.is_valid(raise_exception=True)
        user = authenticate(request._request, **asked.validated_data)
        if user is None:
            # Which of the two is wrong is nobody's business.
            raise ValidationError("username and password do not belong together.")
        token, _ = Token.objects.get_or_create(user=user)
        return Response({"token": token.key})
