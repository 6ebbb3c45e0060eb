"""The API held to its own document: whatever is sent, it answers as it says that it does."""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.an_api import Api, Caller, fresh

EXAMPLES: Final = 40
CHECKS: Final[list[Any]] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
]


@pytest.fixture
def document(api: Api) -> Iterator[Any]:
    yield schemathesis.openapi.from_wsgi("/openapi.json", api.app)


schema = schemathesis.pytest.from_fixture("document")


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_tells_of(case: Case, merchant: Caller) -> None:
    headers = {"Authorization": f"Bearer {merchant.key}", "Idempotency-Key": fresh("key")}

    case.call_and_validate(headers=headers, checks=CHECKS)
