"""The API held to its own document: whatever is sent, it answers as it says that it does."""

import re
import time
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import ROUTES
from api.http import Route
from tests.api.an_api import NOT_UP_TO_DATE, PATIENCE_SECONDS, Api, Caller, fresh

EXAMPLES: Final = 15
EXAMPLES_OF_A_READ: Final = 8  # which takes a few parameters, and no body
CHECKS_OF_ANSWERS: Final[list[Any]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CHECKS: Final[list[Any]] = [*CHECKS_OF_ANSWERS, negative_data_rejection]
BOUNDED: Final = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="session")
def document(shared_api: Api) -> Any:
    """The published one, read once."""
    return schemathesis.openapi.from_wsgi("/openapi.json", shared_api.app)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_answer_is_one_that_the_document_tells_of(
    document: Any, merchant: Caller, route: Route, mode: GenerationMode
) -> None:
    path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)
    operation = document[path][route.method]

    @settings(BOUNDED, max_examples=EXAMPLES if route.is_command else EXAMPLES_OF_A_READ)
    @given(case=operation.as_strategy(generation_mode=mode))
    def check(case: Case[Any]) -> None:
        headers = {"Authorization": f"Bearer {merchant.key}", "Idempotency-Key": fresh("key")}
        checks = CHECKS if is_wrong_as_sent(case) else CHECKS_OF_ANSWERS
        case.validate_response(called(case, headers), checks=checks)

    check()


def called(case: Case[Any], headers: dict[str, str]) -> Any:
    """Called again, as a program does, while what is asked for is not up to date yet."""
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        response = case.call(headers=headers)
        is_behind = response.status_code == 503 and NOT_UP_TO_DATE in response.text
        if not is_behind or time.monotonic() > give_up_at:
            return response


def is_wrong_as_sent(case: Case[Any]) -> bool:
    """Whether something but a header was made wrong, since those that are sent are ours."""
    assert case.meta is not None
    return any(
        component.mode is GenerationMode.NEGATIVE
        for location, component in case.meta.components.items()
        if location is not ParameterLocation.HEADER
    )
