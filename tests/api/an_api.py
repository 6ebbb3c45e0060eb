"""The API as a merchant's program sees it: a key, requests, and answers that keep their manners."""

import json
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, LiteralString

from flask import Flask
from pydantic import BaseModel
from werkzeug.test import TestResponse

from api.answers import FamilyAnswers
from api.app import create_app
from api.http import API_VERSION
from api.schemas import ErrorOut, ReceiptOut, RefundOut
from domain.bank import Answer, BankRequest
from domain.commands import Mode
from infrastructure.api_keys import DEFAULT_SCOPES, ApiKey, KeyType
from infrastructure.database import Waits
from infrastructure.projections.engine import ProjectionEngine
from infrastructure.services import Services, build_services
from infrastructure.settings import read_settings
from infrastructure.vault import new_key
from infrastructure.worker import Worker
from tests.builders import EMPTY_MASTERCARD, EXPIRED_MASTERCARD, SMALL_VISA, VISA
from tests.fakes import FakeBank, SteppableClock
from tests.patience import PATIENT

CONNECTIONS: Final = 8
THREADS: Final = 64
PATIENCE_SECONDS: Final = 20
NOT_UP_TO_DATE: Final = "not up to date yet"
VAULT_KEY: Final = new_key()  # one a process: what a store is encrypted with, all who share it have
NO_LIMITS: Final = {
    "RATE_LIMIT_PER_MINUTE": "0",
    "RATE_LIMIT_INTENTS_PER_MINUTE": "0",
    "RATE_LIMIT_IP_PER_MINUTE": "0",
}

GOOD_CARD: Final = {"number": VISA, "exp_month": 12, "exp_year": 2030, "cvc": "123"}
SMALL_CARD: Final = {"number": SMALL_VISA, "exp_month": 6, "exp_year": 2030, "cvc": "456"}
EMPTY_CARD: Final = {"number": EMPTY_MASTERCARD, "exp_month": 9, "exp_year": 2030, "cvc": "789"}
OLD_CARD: Final = {"number": EXPIRED_MASTERCARD, "exp_month": 3, "exp_year": 2020, "cvc": "321"}

BEHIND: Final[LiteralString] = """
    SELECT (SELECT coalesce(sum(position), 0)::bigint FROM shard_heads) AS positions,
           (SELECT count(*) FROM events) AS events,
           (SELECT count(*) FROM receipts) AS receipts,
           (SELECT count(*) FROM refunds) AS refunds,
           (SELECT count(*) FROM idempotency_keys) AS idempotency_keys,
           (SELECT count(*) FROM bank_calls) AS bank_calls,
           (SELECT count(*) FROM order_slots) AS order_slots,
           (SELECT count(*) FROM stored_cards) AS stored_cards,
           (SELECT count(*) FROM personal_data) AS personal_data
"""
TIME_FLIES: Final[LiteralString] = """
    UPDATE bank_calls SET due_at =
        CASE WHEN merchant_id = %(merchant_id)s THEN clock_timestamp() ELSE 'infinity' END
"""

_numbers = count(100_000)  # of six digits: none is ever found where a CVC is looked for


class BankThatWaits(FakeBank):
    """Asked, it answers when it is told to, and not before."""

    def __init__(self) -> None:
        super().__init__(SteppableClock(datetime.now(UTC)))
        self.was_asked, self.may_answer = threading.Event(), threading.Event()
        self._one_at_a_time = threading.Lock()

    def perform(self, request: BankRequest) -> Answer:
        self.was_asked.set()
        assert self.may_answer.wait(PATIENCE_SECONDS)
        with self._one_at_a_time:
            return super().perform(request)


@dataclass
class Api:
    """An application and what is behind it."""

    services: Services
    app: Flask

    def merchant(self, name: str | None = None, **options: Any) -> "Caller":
        """A key of the merchant of that name, else of one that nobody has heard of."""
        name = name or f"merchant-{next(_numbers)}"
        fields: dict[str, Any] = {"mode": Mode.TEST, "type": KeyType.SECRET}
        fields |= {"scopes": DEFAULT_SCOPES, **options}
        record, key = self.services.api_keys.create(name, **fields)
        return Caller(self.app, key, record, name)

    def nobody(self) -> "Caller":
        """Someone without a key."""
        return Caller(self.app, None, None, "")

    @contextmanager
    def asking(self, bank: FakeBank) -> Iterator[None]:
        """The ledger asks `bank` for a while."""
        before, self.services.ledger.bank = self.services.ledger.bank, bank
        try:
            yield
        finally:
            self.services.ledger.bank = before

    def behind(self) -> dict[str, Any]:
        """How much there is of everything that a request may leave behind."""
        with self.services.pool.connection() as connection:
            row = connection.execute(BEHIND).fetchone()
        assert row is not None
        return row

    def execute(self, statement: LiteralString, **parameters: Any) -> None:
        with self.services.pool.connection() as connection:
            connection.execute(statement, parameters)

    def worker_has_been_at_it(self, merchant: "Caller") -> None:
        """Every parked call of the merchant's is due now, and a worker takes each up, once."""
        assert merchant.record is not None
        self.execute(TIME_FLIES, merchant_id=merchant.record.merchant_id)
        worker = Worker(self.services)
        with ThreadPoolExecutor(1) as executor:
            worker.take_up(executor)


def settings_for(database_url: str, **overrides: str) -> dict[str, str]:
    """An environment without limits, with the vault of all that share a database."""
    return {"DATABASE_URL": database_url, "VAULT_KEYS": VAULT_KEY, **NO_LIMITS, **overrides}


@contextmanager
def an_api(
    database_url: str, *, threads: int = THREADS, waits: Waits | None = PATIENT, **environ: str
) -> Iterator[Api]:
    """An application of its own, with read models that are kept up with the log. `waits`: for the
    database; None for as long as whoever serves does."""
    settings = read_settings(settings_for(database_url, **environ))
    services = build_services(
        settings,
        answers=FamilyAnswers(),
        connections=CONNECTIONS,
        bank_connections=CONNECTIONS,
        **({} if waits is None else {"waits": waits}),
    )
    stopping = threading.Event()
    engine = ProjectionEngine(services.pool, services.clock.monotonic)
    following = threading.Thread(target=engine.run, args=(stopping,), daemon=True)
    following.start()
    try:
        yield Api(services, create_app(services, threads=threads))
    finally:
        stopping.set()
        following.join()
        services.close()


@dataclass
class Caller:
    """A merchant's program. Every answer that it gets is checked for what all of them share."""

    app: Flask
    key: str | None
    record: ApiKey | None
    merchant: str
    headers: dict[str, str] = field(default_factory=dict)

    def with_headers(self, **headers: str) -> "Caller":
        """The same, sending these with every request; an underscore stands for a hyphen."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Caller(self.app, self.key, self.record, self.merchant, {**self.headers, **named})

    def speaking_stripe(self) -> "Caller":
        return self.with_headers(Stripe_Version="2025-03-31.basil")

    def request(self, method: str, path: str, **options: Any) -> TestResponse:
        """Sends it; `headers` of None are left out. The answer is checked for its manners."""
        headers: dict[str, str | None] = {**self.headers}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        headers |= options.pop("headers", {})
        sent = {name: value for name, value in headers.items() if value is not None}
        response = self.app.test_client().open(path, method=method, headers=sent, **options)
        check_manners(response, method)
        return response

    def get(self, path: str, **options: Any) -> TestResponse:
        """Asks again, as a program does, while what it asks for is not up to date yet."""
        give_up_at = time.monotonic() + PATIENCE_SECONDS
        while True:
            response = self.request("GET", path, **options)
            is_behind = response.status_code == 503 and NOT_UP_TO_DATE in response.text
            if not is_behind or time.monotonic() > give_up_at:
                return response

    def post(
        self, path: str, body: Any = None, *, key: str | None = "", **options: Any
    ) -> TestResponse:
        """POSTs under a fresh idempotency key, under `key`, or under none where that is None."""
        own = {"Idempotency-Key": fresh("key") if key == "" else key}
        headers = own | options.pop("headers", {})
        if "data" not in options:
            options["json"] = body
        return self.request("POST", path, headers=headers, **options)

    def patch(
        self, path: str, body: Any = None, *, key: str | None = "", **options: Any
    ) -> TestResponse:
        """PATCHes as `post` POSTs."""
        own = {"Idempotency-Key": fresh("key") if key == "" else key}
        headers = own | options.pop("headers", {})
        if "data" not in options:
            options["json"] = {} if body is None else body
        return self.request("PATCH", path, headers=headers, **options)

    def authorize(self, *, key: str | None = "", **overrides: Any) -> TestResponse:
        return self.post("/v1/authorizations", an_authorization(**overrides), key=key)

    def capture(self, payment_id: str, **fields: Any) -> TestResponse:
        return self.post("/v1/captures", {"payment_id": payment_id, **fields})

    def void(self, payment_id: str) -> TestResponse:
        return self.post("/v1/voids", {"payment_id": payment_id})

    def refund(self, payment_id: str, **fields: Any) -> TestResponse:
        return self.post("/v1/refunds", {"payment_id": payment_id, **fields})

    def receipt(self, payment_id: str, query: str = "") -> dict[str, Any]:
        return shaped(ReceiptOut, self.get(f"/v1/receipts/{payment_id}{query}"), 200)

    def authorized(self, **overrides: Any) -> dict[str, Any]:
        return shaped(ReceiptOut, self.authorize(**overrides), 201)

    def captured(self, **overrides: Any) -> dict[str, Any]:
        payment_id = self.authorized(**overrides)["payment_id"]
        return shaped(ReceiptOut, self.capture(payment_id), 201)

    def voided(self) -> dict[str, Any]:
        return shaped(ReceiptOut, self.void(self.authorized()["payment_id"]), 201)

    def refunded(self) -> dict[str, Any]:
        payment_id = self.captured()["payment_id"]
        shaped(RefundOut, self.refund(payment_id), 201)
        return self.receipt(payment_id)

    def declined(self) -> dict[str, Any]:
        response = self.authorize(card=EMPTY_CARD)
        return self.receipt(error_of(response, 402)["payment_id"])


def fresh(what: str) -> str:
    """A name that was not used before in this process."""
    return f"{what}-{next(_numbers)}"


def an_authorization(**overrides: Any) -> dict[str, Any]:
    """The body of one, for an order of its own; what is None is left out."""
    body = {
        "order_id": fresh("ORD"),
        "customer_id": "cus_123",
        "amount": 5000,
        "currency": "USD",
        "card": GOOD_CARD,
    } | overrides
    return {name: value for name, value in body.items() if value is not None}


def check_manners(response: TestResponse, method: str) -> None:
    """What section 1 of the contract says of every answer."""
    assert response.headers["Request-Id"].startswith("req_")
    assert response.headers["X-API-Version"] == API_VERSION
    assert response.status_code != 500, response.text
    if method in {"HEAD", "OPTIONS"} or response.request.path.startswith(("/docs", "/metrics")):
        return
    if response.status_code == 204:
        assert response.data == b""
        return
    if response.request.path == "/v1/audit/checkpoint" and response.status_code == 200:
        assert response.content_type == "text/plain; charset=utf-8"
        return
    assert response.content_type == "application/json", response.text
    if (
        response.status_code == 425
    ):  # of the asynchronous family, which says in one word what it waits for
        assert isinstance(json.loads(response.data)["error"], str)
        return
    if response.status_code >= 400:
        error = ErrorOut.model_validate_json(response.data, strict=True).error
        assert error.request_id is not None
        assert error.message
    else:
        assert "error" not in json.loads(response.data)


def shaped(model: type[BaseModel], response: TestResponse, status: int) -> dict[str, Any]:
    """The answer, which has this status, this shape and this order of fields."""
    assert response.status_code == status, response.text
    document: dict[str, Any] = json.loads(response.data)
    model.model_validate_json(response.data)
    assert list(document) == field_names(model)
    return document


def field_names(model: type[BaseModel]) -> list[str]:
    """In the order of publication: a list's pages have their `data` before the rest."""
    names = list(model.model_fields)
    if "data" in names:
        names.remove("data")
        names.insert(1, "data")
    return names


def json_of(response: TestResponse) -> Any:
    """What the answer says."""
    return json.loads(response.data)


def error_of(response: TestResponse, status: int) -> dict[str, Any]:
    """The error, which has this status."""
    assert response.status_code == status, response.text
    error: dict[str, Any] = json.loads(response.data)["error"]
    return error


def brief(error: Mapping[str, Any], *names: str) -> Sequence[Any]:
    """Some fields of an error, None for those that it has not."""
    return tuple(error.get(name) for name in names)


def refusal(response: TestResponse) -> tuple[int, str, str, str | None]:
    """Status, type, code and param."""
    error = json.loads(response.data)["error"]
    return response.status_code, error["type"], error["code"], error.get("param")
