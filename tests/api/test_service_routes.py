"""Health, metrics, the OpenAPI document and the page to try it: for everyone, without a key."""

import json
import re
import time
from datetime import datetime
from html.parser import HTMLParser

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from api.app import ROUTES
from api.errors import REFUSALS
from api.schemas import HealthOut
from projections.api_events import TYPES
from tests.api.an_api import Api, Caller, an_api, error_of, shaped
from tests.fakes import FakeBank, Misfortune


@pytest.mark.parametrize("path", ["/v1/health", "/health"])
def test_health_is_told_to_everyone(api: Api, path: str) -> None:
    health = shaped(HealthOut, api.nobody().get(path), 200)

    assert (health["status"], health["version"]) == ("ok", "2025-09-01")
    assert datetime.fromisoformat(health["timestamp"]).tzinfo is not None
    assert health["timestamp"].endswith("Z")


def test_without_a_database_everything_is_a_503_soon() -> None:
    with an_api("postgresql://nobody@127.0.0.1:9/nothing", waits=None) as api:
        nobody = api.nobody()
        for path in ("/v1/health", "/v1/receipts"):
            began = time.monotonic()
            response = nobody.get(path, headers={"Authorization": "Bearer sk_test_x"})

            assert time.monotonic() - began < 5
            error = error_of(response, 503)
            assert (error["type"], error["code"]) == ("api_error", "service_unavailable")
            assert int(response.headers["Retry-After"]) > 0
            assert response.headers["Stripe-Should-Retry"] == "true"
        assert nobody.get("/metrics").status_code == 200


def test_metrics_are_prometheus_text_and_count_what_is_stuck(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    bank.will_suffer(*[Misfortune.FAILS] * 4)
    merchant.authorize()

    response = api.nobody().get("/metrics")

    assert response.content_type.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    (outstanding,) = families["counterfoil_operations_outstanding"].samples
    assert outstanding.value >= 1
    assert "counterfoil_http_requests" in families
    assert "counterfoil_payments_needing_review" in families
    assert "counterfoil_oldest_outstanding_seconds" in families


def test_made_up_methods_and_paths_do_not_multiply_the_metrics(api: Api) -> None:
    for n in range(3):
        api.nobody().request(f"MADEUP{n}", f"/made/up/{n}")

    text = api.nobody().get("/metrics").text

    assert 'method="other"' in text
    assert "MADEUP" not in text
    assert "/made/up" not in text


# --- the document -------------------------------------------------------------------------------


def test_the_document_is_valid_openapi_3_1(api: Api) -> None:
    document = json.loads(api.nobody().get("/openapi.json").data)

    assert document["openapi"] == "3.1.0"
    OpenAPIV31SpecValidator(document).validate()


def test_the_document_has_every_route_with_every_status_of_its_refusals(api: Api) -> None:
    paths = json.loads(api.nobody().get("/openapi.json").data)["paths"]

    for route in ROUTES:
        operation = paths[re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route.path)][route.method.lower()]
        statuses = {int(status) for status in operation["responses"]}
        assert {*route.answers, 400, 401, 403, 404, 405, 406, 429, 500, 503} <= statuses
        if route.is_command:
            own_words = {422} if route.errors else {status for status, _ in REFUSALS.values()}
            assert own_words | {409, 413, 415, 502} <= statuses
            assert list(operation["requestBody"]["content"]) == list(route.body_types)


def test_the_document_says_what_is_posted_to_webhook_endpoints(api: Api) -> None:
    webhooks = json.loads(api.nobody().get("/openapi.json").data)["webhooks"]

    assert set(webhooks) == TYPES
    for kind in TYPES:
        post = webhooks[kind]["post"]
        body = post["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": "#/components/schemas/EventOut"}
        assert {"Stripe-Signature", "webhook-signature"} <= {
            each["name"] for each in post["parameters"]
        }


def test_the_documents_operations_have_names_of_their_own(api: Api) -> None:
    paths = json.loads(api.nobody().get("/openapi.json").data)["paths"]

    names = [operation["operationId"] for path in paths.values() for operation in path.values()]

    assert len(names) == len(set(names))


# --- the page -----------------------------------------------------------------------------------


class Links(HTMLParser):
    """Everything that a page loads."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value or "" for name, value in attrs if name in {"src", "href"}]


def test_the_page_loads_nothing_from_elsewhere(api: Api) -> None:
    page = api.nobody().get("/docs")

    urls = Links(page.text).urls

    assert page.content_type == "text/html; charset=utf-8"
    assert urls
    assert all(url.startswith("/docs/") for url in urls)
    assert "//" not in re.sub(r"<!doctype html>", "", page.text)
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    for url in urls:
        asset = api.nobody().get(url)
        assert asset.status_code == 200
        assert len(asset.data) > 100
    assert '"/openapi.json"' in api.nobody().get("/docs/start.js").text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
        ("favicon-32x32.png", "image/png"),
    ],
)
def test_the_pages_files_have_their_types(api: Api, name: str, kind: str) -> None:
    assert api.nobody().get(f"/docs/{name}").content_type.partition(";")[0] == kind


@pytest.mark.parametrize("name", ["index.html", "..%2f..%2fapp.py", "swagger-ui.js.map", "%00"])
def test_the_page_has_no_other_files(api: Api, name: str) -> None:
    error = error_of(api.nobody().get(f"/docs/{name}"), 404)

    assert (error["type"], error["code"]) == ("resource_missing", "route_not_found")
