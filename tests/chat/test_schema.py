"""The OpenAPI schema is true: what it describes is what the API takes and gives, and nothing it allows is a 5xx."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import hypothesis
import pytest
import schemathesis
import yaml
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

EXAMPLES = 1000
OPERATIONS = [
    ("POST", "/api/auth/token"),
    ("POST", "/api/chat"),
    ("POST", "/api/messages/{reply_id}/retry"),
    ("GET", "/api/threads"),
    ("POST", "/api/threads"),
    ("GET", "/api/threads/{thread_id}"),
    ("PATCH", "/api/threads/{thread_id}"),
    ("DELETE", "/api/threads/{thread_id}"),
    ("GET", "/api/threads/{thread_id}/messages"),
]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_schema_is_valid_and_nothing_of_it_is_guessed() -> None:
    out = io.StringIO()
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=out)
    schema = yaml.safe_load(out.getvalue())
    described = {(method.upper(), path) for path, methods in schema["paths"].items() for method in methods}
    assert described == set(OPERATIONS)
    answers = schema["paths"]["/api/chat"]["post"]["responses"]
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}
    assert set(answers["503"]["content"]) == {"application/problem+json"}
    assert "outcome_unknown" in schema["components"]["schemas"]["Problem"]["properties"]
    for path, method in itertools.chain.from_iterable(
        ((path, method) for method in methods) for path, methods in schema["paths"].items()
    ):
        assert {"503", "504"} <= set(schema["paths"][path][method]["responses"])
    assert schema["paths"]["/api/threads"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]


def test_the_schema_and_its_page_are_served_to_anybody(client: Any) -> None:
    assert client.get("/api/schema").status_code == 200
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert b"https://" not in page.content


@pytest.mark.slow
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_generated_requests_are_answered_as_the_schema_says(
    alice: Any, api: APIClient, settings: Any, method: str, path: str
) -> None:
    """About 1,000 over all operations: no 5xx, and no status, type or shape that is not described."""
    settings.REST_FRAMEWORK = {
        **settings.REST_FRAMEWORK,
        "DEFAULT_THROTTLE_RATES": {"chat": "100000/min", "token": "100000/min"},
    }
    told = api.post("/api/chat", {"message": "2*(3+4)"}).json()
    existing = {"thread_id": told["thread"]["id"], "reply_id": told["reply"]["id"]}
    headers = {"Authorization": f"Token {Token.objects.create(user=alice).key}"}
    operation = schemathesis.openapi.from_wsgi("/api/schema", get_wsgi_application())[path][method]
    requests = itertools.count(1)

    @hypothesis.settings(
        max_examples=math.ceil(EXAMPLES / len(OPERATIONS)),
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(
        case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
        | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    )
    def send(case: schemathesis.Case) -> None:
        # Half of them about what exists: else only 404s would be seen.
        if next(requests) % 2:
            parameters = case.path_parameters or {}
            case.path_parameters = {name: existing.get(name, value) for name, value in parameters.items()}
        case.call_and_validate(headers=headers, checks=CHECKS)

    send()
    assert next(requests) > EXAMPLES / len(OPERATIONS)
