"""A second version of the interface is a few lines in one place: nothing else knows of it."""

from typing import Any, Final

import pytest

from api.app import create_app
from api.http import API_VERSION
from api.versions import VERSIONS, Change, Version
from tests.api.an_api import Api, Caller, error_of, json_of

NEWER: Final = "2031-01-15"
CUSTOMERS: Final = frozenset(
    {"POST /v1/customers", "PATCH /v1/customers/<customer_id>", "GET /v1/customers/<customer_id>"}
)
# In the older version the telephone was `tel`, and a description could not be given.
RENAMED: Final = Change(
    says="`tel` is `phone`.",
    routes=CUSTOMERS,
    request=lambda body: {"phone" if name == "tel" else name: body[name] for name in body},
    answer=lambda body: {"tel" if name == "phone" else name: body[name] for name in body},
)
FILTERED: Final = Change(
    says="`with_email` is `email`.",
    routes=frozenset({"GET /v1/customers"}),
    request=lambda query: {"email" if n == "with_email" else n: query[n] for n in query},
)
TWO: Final = (*VERSIONS, Version(name=NEWER, changes=(RENAMED, FILTERED)))


@pytest.fixture
def merchant(api: Api) -> Caller:
    """Of a server that speaks both."""
    caller = api.merchant()
    caller.app = create_app(api.services, threads=8, versions=TWO)
    return caller


def as_of(merchant: Caller, version: str | None, method: str, path: str, **options: Any) -> Any:
    """As `Caller.request`, which expects one version only."""
    headers = {"Authorization": f"Bearer {merchant.key}", **options.pop("headers", {})}
    if version is not None:
        headers["X-API-Version"] = version
    answer = merchant.app.test_client().open(path, method=method, headers=headers, **options)
    assert answer.headers["X-API-Version"] == (version or API_VERSION)
    return answer


def test_each_version_has_its_own_words_for_the_same_thing(merchant: Caller) -> None:
    made = as_of(merchant, API_VERSION, "POST", "/v1/customers", json={"tel": "1"})
    path = f"/v1/customers/{json_of(made)['id']}"

    then, now = (json_of(as_of(merchant, each, "GET", path)) for each in (None, NEWER))

    assert made.status_code == 201
    assert (then.pop("tel"), now.pop("phone")) == ("1", "1")
    assert then == now == {n: v for n, v in json_of(made).items() if n != "tel"}


def test_words_of_another_version_are_unknown(merchant: Caller) -> None:
    refused = as_of(merchant, NEWER, "POST", "/v1/customers", json={"tel": "1"})

    assert error_of(refused, 400)["param"] == "tel"


def test_a_query_is_translated_too(merchant: Caller) -> None:
    as_of(merchant, NEWER, "POST", "/v1/customers", json={"email": "a@example.com"})

    old = as_of(merchant, API_VERSION, "GET", "/v1/customers?with_email=a@example.com")
    new = as_of(merchant, NEWER, "GET", "/v1/customers?email=a@example.com")

    assert json_of(old) == json_of(new)
    assert len(json_of(new)["data"]) == 1


def test_a_replay_is_told_in_the_version_that_asks(merchant: Caller) -> None:
    key = {"Idempotency-Key": "one key in two versions"}
    first = as_of(merchant, API_VERSION, "POST", "/v1/customers", json={"tel": "1"}, headers=key)

    same = as_of(merchant, API_VERSION, "POST", "/v1/customers", json={"tel": "1"}, headers=key)
    newer = as_of(merchant, NEWER, "POST", "/v1/customers", json={"phone": "1"}, headers=key)

    assert same.data == first.data
    assert newer.headers["Idempotent-Replayed"] == "true"
    assert json_of(newer)["phone"] == "1"


@pytest.mark.parametrize("version", ["", "2025-09-02", "latest", "2025-09-01 "])
def test_an_unknown_version_is_refused(merchant: Caller, version: str) -> None:
    headers = {"Authorization": f"Bearer {merchant.key}", "X-API-Version": version}

    response = merchant.app.test_client().get("/v1/customers", headers=headers)

    assert error_of(response, 400)["code"] == "unsupported_api_version"
