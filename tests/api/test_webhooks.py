"""Webhook endpoints and deliveries, from the payment to the merchant's receiver."""

import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from typing import Any, Final, LiteralString

import pytest
import standardwebhooks
import stripe
from structlog.testing import capture_logs
from werkzeug.test import TestResponse

import payments
from api.app import create_app
from api.payments.schemas import (
    DeliveryList,
    EndpointList,
    EndpointOut,
    EndpointWithSecretOut,
)
from domain.commands import Cause
from domain.ids import Prefix, decode
from infrastructure.projections.rebuild import rebuild
from infrastructure.services import build_deliverer
from infrastructure.settings import Environment
from infrastructure.webhooks.deliverer import Deliverer, pause_seconds
from infrastructure.webhooks.endpoints import MOST_ENDPOINTS
from infrastructure.webhooks.javascript import stringify
from infrastructure.webhooks.queue import (
    LEASE_SECONDS,
    Attempt,
    Attempted,
    DeliveryQueue,
    Due,
    Tell,
)
from infrastructure.webhooks.sender import Result, Sender, a_sender
from projections.webhook_deliveries import NAME
from tests.api.a_server import free_port
from tests.api.an_api import THREADS, Api, Caller, an_api, error_of, json_of, refusal, shaped
from tests.api.conftest import NOWHERE
from tests.conftest import Databases
from tests.fakes import FakeBank
from tests.infrastructure.projections.a_log import poll_until, rebuilt
from tests.infrastructure.webhooks.a_receiver import (
    Receiver,
    answers,
    answers_too_late,
    drips,
    floods,
    hangs,
    hangs_up,
    sends,
)

ENDPOINTS: Final = "/v1/webhook_endpoints"
URL: Final = "https://shop.example/hooks"
PATIENT_SECONDS: Final = 10.0
IMPATIENT_SECONDS: Final = 0.7
THIS_MINUTE_GOES_ON: Final[LiteralString] = """
    UPDATE webhook_minutes SET minute = floor(extract(epoch FROM clock_timestamp()) / 60)
"""

TIME_FLIES: LiteralString = """
    UPDATE webhook_deliveries SET due_at = clock_timestamp()
    WHERE merchant_id = %(merchant_id)s AND status = 'pending'
"""
NOTHING_ELSE_IS_DUE: LiteralString = """
    UPDATE webhook_deliveries SET due_at = 'infinity'
    WHERE merchant_id <> %(merchant_id)s AND status = 'pending'
"""
THREE_DAYS_PASS: LiteralString = """
    WITH aged AS (
        UPDATE webhook_endpoints SET failing_since = failing_since - interval '3 days'
        WHERE merchant_id = %(merchant_id)s
    )
    UPDATE webhook_deliveries
    SET due_at = clock_timestamp(), gives_up_at = gives_up_at - interval '3 days'
    WHERE merchant_id = %(merchant_id)s AND status = 'pending'
"""
A_MONTH_PASSES: LiteralString = """
    UPDATE webhook_deliveries SET created_at = created_at - interval '31 days'
    WHERE merchant_id = %(merchant_id)s
"""
FOLLOWED_FROM_THE_START: LiteralString = """
    UPDATE projection_positions SET position = 0 WHERE name = 'webhook_deliveries'
"""
SECRETS: LiteralString = "SELECT sealed FROM webhook_secrets WHERE endpoint_id = %(id)s"
ERASURES_ARE_DUE: LiteralString = "UPDATE erasures SET due_at = clock_timestamp()"
FAILING: LiteralString = "SELECT failing_since FROM webhook_endpoints WHERE id = %(id)s"
ANSWERS: LiteralString = """
    SELECT headers::text AS headers, body FROM idempotency_keys WHERE merchant_id = %(id)s
"""
ROWS: LiteralString = """
    SELECT event_id, endpoint_id, id, status FROM webhook_deliveries
    WHERE merchant_id = %(id)s ORDER BY id
"""


@pytest.fixture(scope="module")
def hooks_api(databases: Databases) -> Iterator[Api]:
    """Of this module's own, so that nobody else's deliveries are due."""
    with databases.clone() as url, an_api(url, BANK_URL=NOWHERE) as api:
        yield api


@pytest.fixture
def shop(hooks_api: Api, bank: FakeBank) -> Iterator[Caller]:
    merchant = hooks_api.merchant()
    assert merchant.record is not None
    hooks_api.execute(NOTHING_ELSE_IS_DUE, merchant_id=merchant.record.merchant_id)
    with hooks_api.asking(bank):
        yield merchant


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def made(shop: Caller, url: str = URL, *events: str, **fields: Any) -> dict[str, Any]:
    body = {"url": url, "enabled_events": list(events) or ["*"], **fields}
    return shaped(EndpointWithSecretOut, shop.post(ENDPOINTS, body), 201)


def an_hour(_failures: int) -> float:
    """So long that nothing is due again by itself while a test runs."""
    return 3600.0


def a_deliverer(
    api: Api,
    *,
    tell: Tell | None = None,
    pause: Callable[[int], float] = an_hour,
    timeout_seconds: float = PATIENT_SECONDS,
    limit: int = 0,
    queue: DeliveryQueue | None = None,
    **options: Any,
) -> Deliverer:
    """The worker's, with patience and pauses of the test's own."""
    services = api.services
    local = partial(a_sender, allows_local=True, timeout_seconds=timeout_seconds)
    return Deliverer(
        queue or DeliveryQueue(services.pool),
        services.webhook_endpoints,
        tell or services.tell_events,
        limit=limit,
        pause=pause,
        **{"sending": local, **options},
    )


def deliver(api: Api, shop: Caller, deliverer: Deliverer | None = None) -> int:
    """All that is due is attempted, once; how much that was."""
    events(shop)  # waits for what is to be delivered
    deliverer, total = deliverer or a_deliverer(api), 0
    while taken := deliverer.run_once():
        total += taken
    return total


def once_current(shop: Caller, path: str) -> TestResponse:
    """The answer of a route that waits for what follows the log, on a machine that is busy as well."""
    found: list[TestResponse] = []

    def is_told() -> bool:
        found.append(shop.get(path))
        return found[-1].status_code == 200

    poll_until(is_told)
    return found[-1]


def time_flies(api: Api, shop: Caller, statement: LiteralString = TIME_FLIES) -> None:
    assert shop.record is not None
    api.execute(statement, merchant_id=shop.record.merchant_id)


def deliveries(shop: Caller, endpoint: dict[str, Any], query: str = "") -> list[dict[str, Any]]:
    path = f"{ENDPOINTS}/{endpoint['id']}/deliveries?limit=100{query}"
    found: list[dict[str, Any]] = shaped(DeliveryList, once_current(shop, path), 200)["data"]
    return found


def events(shop: Caller, query: str = "") -> list[dict[str, Any]]:
    path = f"/v1/events?limit=100{query}"
    found: list[dict[str, Any]] = json_of(once_current(shop, path))["data"]
    return found


def told(receiver: Receiver) -> list[str]:
    return [json.loads(body)["type"] for body in receiver.bodies]


def rows(api: Api, shop: Caller) -> list[dict[str, Any]]:
    assert shop.record is not None
    with api.services.pool.connection() as connection:
        return connection.execute(ROWS, {"id": shop.record.merchant_id}).fetchall()


# --- endpoints ----------------------------------------------------------------------------------


def test_an_endpoint_is_kept_changed_and_deleted(shop: Caller) -> None:
    endpoint = made(
        shop, URL, "refund.*", "*", "*", description="ours", metadata={"a": 1, "b": "2"}
    )
    secret = endpoint.pop("secret")
    one = f"{ENDPOINTS}/{endpoint['id']}"

    assert len(secret) > 40
    assert (endpoint["status"], endpoint["disabled_reason"]) == ("enabled", None)
    assert endpoint["enabled_events"] == ["refund.*", "*"]
    assert shaped(EndpointOut, shop.get(one), 200) == endpoint
    assert shaped(EndpointList, shop.get(ENDPOINTS), 200)["data"] == [endpoint]
    change = {"metadata": {"b": "", "c": True}, "disabled": True, "description": ""}
    changed = shaped(EndpointOut, shop.patch(one, change), 200)
    assert changed["metadata"] == {"a": 1, "c": True}
    assert (changed["status"], changed["disabled_reason"]) == ("disabled", "requested")
    assert (changed["description"], changed["url"]) == (None, URL)
    moved = {"url": "https://shop.example/other", "enabled_events": ["*"], "disabled": False}
    assert shaped(EndpointOut, shop.post(one, moved), 200)["status"] == "enabled"
    assert shop.request("DELETE", one).status_code == 204
    assert refusal(shop.get(one)) == (404, "resource_missing", "webhook_endpoint_not_found", None)


def test_endpoints_are_listed_newest_first_and_paged(shop: Caller) -> None:
    ids = [made(shop)["id"] for _ in range(3)]

    first = shaped(EndpointList, shop.get(f"{ENDPOINTS}?limit=2"), 200)
    rest = shaped(EndpointList, shop.get(f"{ENDPOINTS}?starting_after={first['next_cursor']}"), 200)

    assert [each["id"] for each in (*first["data"], *rest["data"])] == ids[::-1]
    assert refusal(shop.get(f"{ENDPOINTS}?starting_after=we_1"))[3] == "starting_after"


def test_a_secret_is_shown_once_and_kept_sealed(hooks_api: Api, shop: Caller) -> None:
    body = {"url": URL, "enabled_events": ["*"]}
    first = shop.post(ENDPOINTS, body, key="a key of ours")
    endpoint = json_of(first)
    rotated = shop.post(f"{ENDPOINTS}/{endpoint['id']}/rotate_secret", {}, key="another")
    secrets = [json_of(each)["secret"].encode() for each in (first, rotated)]

    again = shop.post(ENDPOINTS, body, key="a key of ours")

    assert (again.data, again.headers["Idempotent-Replayed"]) == (first.data, "true")
    assert "sealed" not in again.headers
    once_more = shop.post(f"{ENDPOINTS}/{endpoint['id']}/rotate_secret", {}, key="another")
    assert once_more.data == rotated.data
    assert len(json_of(shop.get(ENDPOINTS))["data"]) == 1
    assert secrets[0] not in shop.get(f"{ENDPOINTS}/{endpoint['id']}").data
    assert shop.record is not None
    with hooks_api.services.pool.connection() as connection:
        uuid = decode(Prefix.WEBHOOK_ENDPOINT, endpoint["id"])
        kept = [row["sealed"] for row in connection.execute(SECRETS, {"id": uuid}).fetchall()]
        found = connection.execute(ANSWERS, {"id": shop.record.merchant_id}).fetchall()
    assert len(kept) == 2
    for secret in secrets:
        assert all(secret not in bytes(each) for each in kept)
        assert all(secret not in bytes(row["body"]) for row in found)


def test_there_is_an_end_to_how_many_there_may_be(shop: Caller) -> None:
    for _ in range(MOST_ENDPOINTS):
        made(shop)

    one_more = shop.post(ENDPOINTS, {"url": URL, "enabled_events": ["*"]})

    assert error_of(one_more, 400)["code"] == "too_many_webhook_endpoints"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"url": "ftp://shop.example/"}, "url"),
        ({"url": "https://user:pw@shop.example/"}, "url"),
        ({"url": "https://169.254.169.254/"}, "url"),
        ({"url": "https://shop.example/" + "x" * 2048}, "url"),
        ({"url": "https://shop.example/\u0000"}, "url"),
        ({"url": None}, "url"),
        ({"url": 7}, "url"),
        ({"enabled_events": []}, "enabled_events"),
        ({"enabled_events": "*"}, "enabled_events"),
        ({"enabled_events": ["payment.exploded"]}, "enabled_events[0]"),
        ({"enabled_events": ["*", "pay.*"]}, "enabled_events[1]"),
        ({"enabled_events": ["*"] * 101}, "enabled_events"),
        ({"metadata": {str(number): "x" for number in range(51)}}, "metadata"),
        ({"metadata": {"k" * 41: "x"}}, "metadata"),
        ({"description": "x" * 501}, "description"),
        ({"api_version": "2020-01-01"}, "api_version"),
        ({"secret": "whsec_mine"}, "secret"),
    ],
)
def test_what_is_no_endpoint_is_refused_by_name_and_nothing_is_kept(
    shop: Caller, fields: dict[str, Any], param: str
) -> None:
    refused = shop.post(ENDPOINTS, {"url": URL, "enabled_events": ["*"], **fields})
    endpoint = made(shop)
    change = shop.post(f"{ENDPOINTS}/{endpoint['id']}", {"description": "new", **fields})

    assert error_of(refused, 400)["param"] == param
    if fields != {"url": None}:  # which changes nothing
        assert error_of(change, 400)["param"] == param
    listed = json_of(shop.get(ENDPOINTS))["data"]
    assert [each["id"] for each in listed] == [endpoint["id"]]


@pytest.mark.parametrize("expires_in", [-1, 604_801, "1", True, 1.5])
def test_a_rotation_has_its_limits(shop: Caller, expires_in: Any) -> None:
    endpoint = made(shop)

    refused = shop.post(f"{ENDPOINTS}/{endpoint['id']}/rotate_secret", {"expires_in": expires_in})

    assert error_of(refused, 400)["param"] == "expires_in"


def test_in_production_receivers_are_public_and_by_https(hooks_api: Api, shop: Caller) -> None:
    settings = replace(hooks_api.services.settings, environment=Environment.PRODUCTION)
    services = replace(hooks_api.services, settings=settings)
    there = replace(shop, app=create_app(services, threads=THREADS))

    assert made(there, URL)["url"] == URL
    for url in ("http://shop.example/", "https://127.0.0.1/", "https://localhost/"):
        refused = there.post(ENDPOINTS, {"url": url, "enabled_events": ["*"]})
        assert error_of(refused, 400)["param"] == "url"
    with Receiver() as receiver:
        endpoint = made(shop, receiver.url)
        shop.authorized()
        events(shop)
        build_deliverer(services).run_once()
        (delivery,) = deliveries(shop, endpoint)
    assert (delivery["error"], receiver.connections) == ("address_refused", 0)


# --- deliveries ---------------------------------------------------------------------------------


def test_what_happened_is_delivered_signed_and_said_to_be(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.refunded()
    waiting = events(shop)
    assert {each["pending_webhooks"] for each in waiting} == {1}

    deliver(hooks_api, shop)

    assert sorted(receiver.bodies) == sorted(stringify(each).encode() for each in waiting)
    for delivered in receiver.delivered:
        signature, secret = delivered.headers["stripe-signature"], endpoint["secret"]
        event = stripe.Webhook.construct_event(delivered.body, signature, secret)
        assert payments.Webhook.construct_event(delivered.body, signature, secret).id == event.id
        standardwebhooks.Webhook(secret).verify(delivered.body, delivered.headers)
        assert delivered.headers["webhook-id"] == event.id
    assert {each["pending_webhooks"] for each in events(shop)} == {0}
    listed = deliveries(shop, endpoint)
    assert {each["event"] for each in listed} == {each["id"] for each in waiting}
    for each in listed:
        assert (each["status"], each["attempts"], each["next_attempt_at"]) == ("succeeded", 1, None)
        assert (each["status_code"], each["response"], each["error"]) == (200, "ok", None)
        assert 0 <= each["duration_ms"] <= PATIENT_SECONDS * 1000
    assert deliver(hooks_api, shop) == 0


def test_a_body_is_as_javascript_writes_it(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    made(shop, receiver.url)
    metadata = {"b": 1e-7, "10": "é\u2028😀", "9": 2.0, "01": True}
    shop.authorized(metadata=metadata)

    deliver(hooks_api, shop)

    (body,) = receiver.bodies
    text = body.decode()
    assert '"metadata":{"9":2,"10":"é\u2028😀","01":true,"b":1e-7}' in text
    assert stringify(json.loads(text)) == text


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (["payment.succeeded"], ["payment.succeeded"]),
        (["refund.*"], ["refund.created", "refund.succeeded"]),
        (
            ["charge.refunded", "payment.*"],
            ["payment.authorized", "payment.succeeded", "charge.refunded"],
        ),
        (["customer.*", "charge.dispute.created"], []),
    ],
)
def test_an_endpoint_is_told_of_what_it_wants(
    hooks_api: Api, shop: Caller, receiver: Receiver, wanted: list[str], expected: list[str]
) -> None:
    made(shop, receiver.url, *wanted)
    shop.refunded()

    deliver(hooks_api, shop)

    assert told(receiver) == expected


def test_each_endpoint_of_a_merchant_is_told_and_no_other(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    for name in ("one", "two"):
        made(shop, f"{receiver.url}/{name}")
    made(hooks_api.merchant(), f"{receiver.url}/another")
    shop.authorized()

    deliver(hooks_api, shop)

    assert {each.path for each in receiver.delivered} == {"/hooks/one", "/hooks/two"}
    assert len({each.headers["stripe-signature"] for each in receiver.delivered}) == 2


def test_an_endpoint_is_told_of_what_happens_while_it_is_enabled(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    shop.authorized()
    endpoint = made(shop, receiver.url)
    shop.post("/v1/customers", {"name": "Ada"})
    deliver(hooks_api, shop)
    shop.post(f"{ENDPOINTS}/{endpoint['id']}", {"disabled": True})
    shop.authorized()
    shop.post(f"{ENDPOINTS}/{endpoint['id']}", {"disabled": False})
    shop.declined()
    deliver(hooks_api, shop)
    shop.authorized()
    events(shop)
    shop.request("DELETE", f"{ENDPOINTS}/{endpoint['id']}")

    deliver(hooks_api, shop)

    assert told(receiver) == ["customer.created", "payment.failed"]
    assert {each["pending_webhooks"] for each in events(shop)} == {0}


def test_an_endpoint_that_is_made_while_events_happen_is_told_once_of_those_that_come_after(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    enough, paid = threading.Event(), dict[str, tuple[float, float]]()

    def pay() -> None:
        while not enough.is_set():
            began = time.monotonic()
            payment_id = shop.authorized()["payment_id"]
            paid[payment_id] = (began, time.monotonic())

    with ThreadPoolExecutor(2) as shoppers:
        shopping = [shoppers.submit(pay) for _ in range(2)]
        poll_until(lambda: len(paid) >= 4)
        began = time.monotonic()
        made(shop, receiver.url)
        ended = time.monotonic()
        poll_until(lambda: sum(at > ended for at, _ in list(paid.values())) >= 4)
        enough.set()
    assert [each.exception() for each in shopping] == [None, None]
    deliver(hooks_api, shop)

    told = [json.loads(body)["data"]["object"]["id"] for body in receiver.bodies]
    assert len(told) == len({*told})
    assert {*told} >= {payment for payment, (first, _) in paid.items() if first > ended}
    assert {*told}.isdisjoint(payment for payment, (_, last) in paid.items() if last < began)


def test_an_endpoint_that_is_deleted_while_it_is_told_is_told_nothing_more(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    for _ in range(2):
        shop.authorized()
    events(shop)
    queue = DeliveryQueue(hooks_api.services.pool)
    (under_way,) = queue.take_due(1, rooms={}, room=1, spent=[])

    shop.request("DELETE", f"{ENDPOINTS}/{endpoint['id']}")

    attempt = Attempt(at=datetime.now(UTC), seconds=0.1, error="timeout")
    queue.record([Attempted(due=under_way, attempt=attempt, pause_seconds=0.0)])
    deliver(hooks_api, shop)
    assert receiver.delivered == []
    assert [each["status"] for each in rows(hooks_api, shop)] == ["failed", "failed"]


def test_while_a_rotation_lasts_both_secrets_sign_and_the_newest_first(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    rotate = f"{ENDPOINTS}/{endpoint['id']}/rotate_secret"
    new = shaped(EndpointWithSecretOut, shop.post(rotate, {"expires_in": 60}), 200)["secret"]
    shop.authorized()
    deliver(hooks_api, shop)
    newest = shaped(EndpointWithSecretOut, shop.post(rotate, {"expires_in": 0}), 200)["secret"]
    shop.authorized()
    deliver(hooks_api, shop)

    first, second = receiver.delivered
    assert first.headers["x-signature"].count("v1=") == 2
    for secret, delivered in (
        (new, first),
        (endpoint["secret"], first),
        (newest, second),
        (endpoint["secret"], second),
    ):
        signature = delivered.headers["payments-signature"]
        stripe.Webhook.construct_event(delivered.body, signature, secret)
        standardwebhooks.Webhook(secret).verify(delivered.body, delivered.headers)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(second.body, second.headers["x-signature"], new)


def test_stripes_clients_are_told_in_the_version_that_they_speak(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    made(shop.speaking_stripe(), receiver.url, api_version="2025-03-31.basil")
    shop.authorized()

    deliver(hooks_api, shop)

    assert json.loads(receiver.bodies[0])["api_version"] == "2025-03-31.basil"


# --- what goes wrong ----------------------------------------------------------------------------


def test_a_receiver_that_is_killed_slow_and_lying_gets_every_event_in_the_end(
    hooks_api: Api, shop: Caller
) -> None:
    """From the worker's loop, over sockets."""
    impatient = partial(a_deliverer, hooks_api, timeout_seconds=IMPATIENT_SECONDS)
    port = free_port()
    with delivering(impatient()), Receiver(port=port) as first:
        endpoint = made(shop, first.url)
        first.will(
            answers_too_late, hangs_up, drips, hangs, answers(503), answers(307, Location="/x")
        )
        for _ in range(2):
            shop.refunded()
        poll_until(lambda: fewest_attempts(shop, endpoint) == 1)
        first.__exit__(None, None, None)
        time_flies(hooks_api, shop)
        poll_until(lambda: fewest_attempts(shop, endpoint, "&status=pending") == 2)
    with Receiver(port=port) as again:
        with delivering(impatient()):
            half = sends(b"HTTP/1.1 200 O", then="hang up")
            again.will(half, sends(b"HTTP/1.1 200 OK\r\n", then="hang up"), floods)
            time_flies(hooks_api, shop)
            poll_until(lambda: fewest_attempts(shop, endpoint, "&status=pending") in (3, None))
        with delivering(a_deliverer(hooks_api)):
            time_flies(hooks_api, shop)
            poll_until(lambda: deliveries(shop, endpoint, "&status=pending") == [])

    delivered = [*first.delivered, *again.delivered]
    told = {
        stripe.Webhook.construct_event(
            each.body, each.headers["stripe-signature"], endpoint["secret"]
        ).id
        for each in delivered
    }
    assert told == {each["id"] for each in events(shop)}
    listed = deliveries(shop, endpoint)
    assert {each["status"] for each in listed} == {"succeeded"}
    assert {each["attempts"] for each in listed} == {1, 3, 4}
    errors = {attempt["error"] for each in listed for attempt in each["history"]}
    assert errors == {"connection_lost", "timeout", "unreachable", None}


@contextmanager
def delivering(deliverer: Deliverer) -> Iterator[None]:
    """As a worker does, until the block ends."""
    stopping = threading.Event()
    worker = threading.Thread(target=deliverer.run, args=(stopping,))
    worker.start()
    try:
        yield
    finally:
        stopping.set()
        worker.join()


def fewest_attempts(shop: Caller, endpoint: dict[str, Any], query: str = "") -> int | None:
    """Of those deliveries; None for none."""
    return min((each["attempts"] for each in deliveries(shop, endpoint, query)), default=None)


def test_a_failed_delivery_is_put_off_longer_each_time(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    events(shop)
    pauses = []
    for _ in range(4):
        receiver.will(answers(500))
        a_deliverer(hooks_api, pause=pause_seconds).run_once()
        (waiting,) = deliveries(shop, endpoint)
        pauses.append(waiting["next_attempt_at"] - waiting["history"][-1]["at"])
        time_flies(hooks_api, shop)

    for pause, expected in zip(pauses, (5, 10, 20, 40), strict=True):
        assert 0.8 * expected - 1 <= pause <= 1.2 * expected + PATIENT_SECONDS
    times = [each.headers["stripe-signature"].split(",")[0] for each in receiver.delivered]
    assert len(set(receiver.bodies)) == 1
    assert times == [f"t={each['at']}" for each in deliveries(shop, endpoint)[0]["history"]]


def test_pauses_double_up_to_six_hours_and_fill_three_days() -> None:
    pauses = [pause_seconds(failures, lambda low, high: (low + high) / 2) for failures in range(40)]

    assert pauses[:4] == [5, 10, 20, 40]
    assert pauses[13:] == [6 * 3600] * 27
    assert {pause_seconds(3, lambda low, _: low), pause_seconds(3, lambda _, high: high)} == {
        32,
        48,
    }
    assert sum(pauses[:22]) < 3 * 86_400 < sum(pauses[:25])


def test_after_three_days_it_is_given_up_and_the_endpoint_disabled_and_said_to_be(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    receiver.will(*[answers(500)] * 2)
    deliver(hooks_api, shop)
    time_flies(hooks_api, shop, THREE_DAYS_PASS)

    with capture_logs() as logs:
        deliver(hooks_api, shop)

    assert [each["status"] for each in deliveries(shop, endpoint)] == ["failed"]
    found = shaped(EndpointOut, shop.get(f"{ENDPOINTS}/{endpoint['id']}"), 200)
    assert (found["status"], found["disabled_reason"]) == ("disabled", "unreachable")
    assert [each["endpoint_id"] for each in logs if "disabled" in each["event"]] == [endpoint["id"]]
    shop.declined()
    assert deliver(hooks_api, shop) == 0
    shop.post(f"{ENDPOINTS}/{endpoint['id']}", {"disabled": False})
    shop.authorized()
    deliver(hooks_api, shop)
    assert told(receiver) == ["payment.authorized"] * 3


def test_one_good_answer_in_three_days_keeps_an_endpoint(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    for behaviours in ([answers(500)], [answers(500), answers(200)], [answers(500)] * 2):
        shop.authorized()
        receiver.will(*behaviours)
        deliver(hooks_api, shop)
    time_flies(hooks_api, shop)
    deliver(hooks_api, shop)

    time_flies(hooks_api, shop, THREE_DAYS_PASS)
    shop.authorized()
    deliver(hooks_api, shop)

    assert json_of(shop.get(f"{ENDPOINTS}/{endpoint['id']}"))["status"] == "enabled"


def test_an_event_is_sent_again_by_hand(hooks_api: Api, shop: Caller, receiver: Receiver) -> None:
    endpoint = made(shop, receiver.url, "payment.authorized")
    other = made(shop, f"{receiver.url}/other", "refund.created")
    shop.authorized()
    deliver(hooks_api, shop)
    (event,) = events(shop)
    resend = f"/v1/events/{event['id']}/resend"

    again = shop.post(resend, {}, key="a key of ours")
    assert json_of(again) == {**event, "pending_webhooks": 1}
    assert shop.post(resend, {}, key="a key of ours").data == again.data
    assert deliver(hooks_api, shop) == 1
    to_one = shop.post(resend, {"webhook_endpoint": other["id"]})
    assert json_of(to_one)["pending_webhooks"] == 1
    assert deliver(hooks_api, shop) == 1

    assert [each.path for each in receiver.delivered] == ["/hooks", "/hooks", "/hooks/other"]
    assert [each["attempts"] for each in deliveries(shop, endpoint)] == [2]
    shop.post(f"{ENDPOINTS}/{other['id']}", {"disabled": True})
    refused = shop.post(resend, {"webhook_endpoint": other["id"]})
    code = "webhook_endpoint_disabled"
    assert refusal(refused) == (409, "invalid_request_error", code, "webhook_endpoint")


def test_what_was_given_up_is_tried_anew_when_it_is_sent_again(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    receiver.will(*[answers(500)] * 3)
    deliver(hooks_api, shop)
    time_flies(hooks_api, shop, THREE_DAYS_PASS)
    deliver(hooks_api, shop)
    shop.post(f"{ENDPOINTS}/{endpoint['id']}", {"disabled": False})

    shop.post(f"/v1/events/{events(shop)[0]['id']}/resend", {})
    a_deliverer(hooks_api, pause=pause_seconds).run_once()
    (waiting,) = deliveries(shop, endpoint)
    time_flies(hooks_api, shop)
    deliver(hooks_api, shop)

    assert waiting["status"] == "pending"
    assert waiting["next_attempt_at"] - waiting["history"][-1]["at"] <= 6 + PATIENT_SECONDS
    assert [each["status"] for each in deliveries(shop, endpoint)] == ["succeeded"]


def test_what_was_erased_is_not_delivered(hooks_api: Api, shop: Caller, receiver: Receiver) -> None:
    made(shop, receiver.url)
    customer = json_of(shop.post("/v1/customers", {"email": "ada@shop.example"}))["id"]
    receiver.will(answers(500))
    deliver(hooks_api, shop)
    shop.request("DELETE", f"/v1/customers/{customer}")
    time_flies(hooks_api, shop)

    deliver(hooks_api, shop)

    assert ["ada@" in body.decode() for body in receiver.bodies] == [True, False, False]


def test_what_a_receiver_said_again_of_who_was_erased_is_erased(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url, "customer.created", "payment.authorized")
    ada = json_of(shop.post("/v1/customers", {"email": "ada@shop.example"}))["id"]
    shop.authorized()
    receiver.will(*[answers(500, b"of ada@shop.example")] * 2)
    deliver(hooks_api, shop)
    time_flies(hooks_api, shop)
    deliver(hooks_api, shop)

    shop.request("DELETE", f"/v1/customers/{ada}")

    listed = {each["type"]: each for each in deliveries(shop, endpoint)}
    said = [each["response"] for each in listed["customer.created"]["history"]]
    assert (said, listed["customer.created"]["response"]) == ([None, None], None)
    assert listed["customer.created"]["attempts"] == 2
    others = [each["response"] for each in listed["payment.authorized"]["history"]]
    assert others == ["of ada@shop.example", "ok"]


def test_what_a_receiver_says_of_whom_was_erased_meanwhile_is_erased_by_a_worker(
    hooks_api: Api, shop: Caller
) -> None:
    endpoint = made(shop, URL, "customer.created")
    ada = json_of(shop.post("/v1/customers", {"email": "ada@shop.example"}))["id"]
    events(shop)
    queue = DeliveryQueue(hooks_api.services.pool)
    (under_way,) = queue.take_due(10, rooms={}, room=10, spent=[])
    shop.request("DELETE", f"/v1/customers/{ada}")
    attempt = Attempt(at=datetime.now(UTC), seconds=0.1, status_code=200, answer="ada@shop.example")
    queue.record([Attempted(due=under_way, attempt=attempt, pause_seconds=1.0)])

    hooks_api.execute(ERASURES_ARE_DUE)
    hooks_api.services.erasure.carry_out_due(Cause(actor="worker"))

    (listed,) = deliveries(shop, endpoint)
    assert (listed["status"], listed["response"]) == ("succeeded", None)


def test_an_event_that_cannot_be_told_is_in_nobodys_way(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    for _ in range(3):
        shop.authorized()
    poison = decode(Prefix.EVENT, events(shop)[1]["id"])

    def tell(tenant: Any, wanted: Any) -> list[dict[str, Any]]:
        if any(row["id"] == poison for row in wanted):
            raise ZeroDivisionError
        return hooks_api.services.tell_events(tenant, wanted)

    deliver(hooks_api, shop, a_deliverer(hooks_api, tell=tell))

    statuses = [each["status"] for each in deliveries(shop, endpoint)]
    assert statuses == ["succeeded", "pending", "succeeded"]


def test_a_merchant_is_sent_so_much_in_a_minute_and_the_rest_later(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    class InOneMinute(DeliveryQueue):
        def count(self, merchant_id: str, times: int) -> tuple[int, float]:
            hooks_api.execute(THIS_MINUTE_GOES_ON)
            return super().count(merchant_id, times)

    endpoint = made(shop, receiver.url)
    for _ in range(5):
        shop.authorized()
    queue = InOneMinute(hooks_api.services.pool)

    deliver(hooks_api, shop, a_deliverer(hooks_api, limit=3, queue=queue))
    time_flies(hooks_api, shop)
    deliver(hooks_api, shop, a_deliverer(hooks_api, limit=3, queue=queue))

    assert len(receiver.delivered) == 3
    late = deliveries(shop, endpoint, "&status=pending")
    assert [each["attempts"] for each in late] == [0, 0]
    assert all(0 < each["next_attempt_at"] - each["created"] <= 120 for each in late)


# --- once, by any number of workers -------------------------------------------------------------


def test_no_two_workers_send_the_same(hooks_api: Api, shop: Caller, receiver: Receiver) -> None:
    for name in range(4):
        made(shop, f"{receiver.url}/{name}")
    for _ in range(3):
        shop.authorized()
    events(shop)

    with ThreadPoolExecutor(4) as workers:
        list(workers.map(lambda _: deliver(hooks_api, shop), range(4)))

    assert len(receiver.delivered) == len({(each.path, each.body) for each in receiver.delivered})
    assert len(receiver.delivered) == 12


def test_what_a_dead_worker_had_is_taken_by_another_once_its_lease_ran_out(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    events(shop)
    queue = DeliveryQueue(hooks_api.services.pool)
    dead = queue.take_due(10, rooms={}, room=10, spent=[])
    assert [each.url for each in dead] == [receiver.url]
    assert deliver(hooks_api, shop) == 0

    time_flies(hooks_api, shop)  # as the lease does
    deliver(hooks_api, shop)
    queue.put_back([])

    assert len(receiver.delivered) == 1
    assert [each["status"] for each in deliveries(shop, endpoint)] == ["succeeded"]


class StoppedOnceItTook(DeliveryQueue):
    """A worker is stopped as soon as it has a lease, and goes on when that is over."""

    now = 0.0

    def take_due(self, limit: int, **options: Any) -> list[Due]:
        taken = super().take_due(limit, **options)
        self.now += LEASE_SECONDS
        return taken


def test_a_worker_that_was_stopped_sends_nothing_that_may_be_anothers_by_now(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    events(shop)
    queue = StoppedOnceItTook(hooks_api.services.pool)
    stopped = a_deliverer(hooks_api, queue=queue, monotonic=lambda: queue.now)

    assert stopped.run_once() == 1

    assert receiver.delivered == []
    assert [each["attempts"] for each in deliveries(shop, endpoint)] == [0]
    assert deliver(hooks_api, shop) == 1


def test_what_is_told_too_late_is_listed_and_says_nothing_of_how_the_receiver_is(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    events(shop)
    queue = DeliveryQueue(hooks_api.services.pool)
    (late,) = queue.take_due(10, rooms={}, room=10, spent=[])
    time_flies(hooks_api, shop)
    deliver(hooks_api, shop)

    attempt = Attempt(at=datetime.now(UTC), seconds=0.1, error="timeout")
    queue.record([Attempted(due=late, attempt=attempt, pause_seconds=1.0)])

    (listed,) = deliveries(shop, endpoint)
    assert (listed["status"], listed["attempts"], listed["error"]) == ("succeeded", 2, "timeout")
    with hooks_api.services.pool.connection() as connection:
        found = connection.execute(FAILING, {"id": decode(Prefix.WEBHOOK_ENDPOINT, endpoint["id"])})
        assert found.fetchall() == [{"failing_since": None}]


class Broken:
    """A sender with a mistake in it, which one receiver brings out."""

    def __init__(self, sender: Sender, url: str) -> None:
        self._sender, self._url = sender, url

    async def send(self, url: str, body: bytes, headers: Any) -> Result:
        if url == self._url:
            raise ZeroDivisionError
        return await self._sender.send(url, body, headers)


def test_a_mistake_of_ours_is_in_nobodys_way_and_not_made_again_at_once(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    made(shop, receiver.url)
    unlucky = made(shop, URL)
    shop.authorized()

    @asynccontextmanager
    async def sending() -> AsyncIterator[Any]:
        async with a_sender(allows_local=True) as sender:
            yield Broken(sender, URL)

    taken = deliver(hooks_api, shop, a_deliverer(hooks_api, sending=sending))

    assert (taken, told(receiver)) == (2, ["payment.authorized"])
    (waiting,) = deliveries(shop, unlucky)
    assert (waiting["status"], waiting["attempts"]) == ("pending", 0)
    assert waiting["next_attempt_at"] - waiting["created"] >= 30


def test_a_rebuild_sends_nothing_again(
    databases: Databases, bank: FakeBank, receiver: Receiver
) -> None:
    with databases.clone() as url, an_api(url, BANK_URL=NOWHERE) as api, api.asking(bank):
        shop = api.merchant()
        made(shop, receiver.url)
        shop.refunded()
        deliver(api, shop)
        before = rows(api, shop)

        rebuilt(url, "api_events")
        events(shop)

        assert rows(api, shop) == before
        assert deliver(api, shop) == 0
        with pytest.raises(KeyError):
            rebuild(url, NAME, lambda *_: None, workers=1)


def test_what_is_followed_twice_is_delivered_once(
    databases: Databases, bank: FakeBank, receiver: Receiver
) -> None:
    with databases.clone() as url, an_api(url, BANK_URL=NOWHERE) as api, api.asking(bank):
        shop = api.merchant()
        made(shop, receiver.url)
        shop.refunded()
        deliver(api, shop)
        before = rows(api, shop)

        api.execute(FOLLOWED_FROM_THE_START)
        events(shop)

        assert rows(api, shop) == before
        assert deliver(api, shop) == 0


def test_deliveries_of_long_ago_are_forgotten_but_none_that_is_to_be_made(
    hooks_api: Api, shop: Caller, receiver: Receiver
) -> None:
    endpoint = made(shop, receiver.url)
    shop.authorized()
    deliver(hooks_api, shop)
    receiver.will(answers(500))
    shop.declined()
    deliver(hooks_api, shop)
    assert shop.record is not None
    hooks_api.execute(A_MONTH_PASSES, merchant_id=shop.record.merchant_id)

    DeliveryQueue(hooks_api.services.pool).prune()

    assert [each["type"] for each in deliveries(shop, endpoint)] == ["payment.failed"]


def test_a_receiver_that_hangs_delays_no_other(hooks_api: Api, shop: Caller) -> None:
    """As the worker runs it, with all its patience."""
    with Receiver() as dead, Receiver() as well:
        for number in range(5):
            made(shop, f"{dead.url}/{number}")
        dead.will(*[hangs] * 1000)
        made(shop, well.url)
        with delivering(build_deliverer(hooks_api.services)):
            for _ in range(20):
                shop.authorized()
            poll_until(lambda: len(well.delivered) == 20)
            dead.closed.set()
    assert len(dead.delivered) < 40
    assert told(well) == ["payment.authorized"] * 20


def test_a_loop_that_ends_is_begun_anew(hooks_api: Api, shop: Caller, receiver: Receiver) -> None:
    made(shop, receiver.url)
    times = count()

    @asynccontextmanager
    async def sending() -> AsyncIterator[Sender]:
        if next(times) == 0:
            raise OSError("no certificates")
        async with a_sender(allows_local=True) as sender:
            yield sender

    with delivering(a_deliverer(hooks_api, sending=sending)):
        shop.authorized()
        poll_until(lambda: told(receiver) == ["payment.authorized"])


def test_a_worker_that_stops_gives_back_what_it_is_at(hooks_api: Api, shop: Caller) -> None:
    with Receiver() as dead:
        made(shop, dead.url)
        dead.will(hangs)
        with delivering(build_deliverer(hooks_api.services)):
            shop.authorized()
            poll_until(lambda: len(dead.delivered) == 1)

        assert deliver(hooks_api, shop) == 1
        assert len(dead.delivered) == 2
