"""The requests that the published documents show, sent as they are shown there, but for ids and for years
that are over: each is answered with what is shown, and with every field that is."""

from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from tests.api.an_api import Caller, json_of

METADATA: Final = {"user_id": "12345", "plan": "premium"}
CUSTOMER: Final = {"email": "dev@example.com", "name": "Dev User"}
WHO: Final = {**CUSTOMER, "phone": "+44 7700 900123"}
CARD: Final = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvc": "456"}
FACE: Final = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2030}
ADDRESS: Final = {
    "line1": "123 Main St",
    "city": "San Francisco",
    "state": "CA",
    "postal_code": "94105",
    "country": "US",
}
BILLING: Final = {"name": "John Doe", "email": "john@example.com", "address": ADDRESS}
ACCOUNT: Final = {
    "account_number": "12345678",
    "sort_code": "12-34-56",
    "account_holder_name": "John Doe",
}
OF_AN_ORDER: Final = {"order_id": "12345", "customer_email": "customer@example.com"}
WANTED: Final = {
    "amount": 2000,
    "currency": "usd",
    "payment_method_types": ["card", "apple_pay"],
    "description": "Payment for Order #12345",
    "metadata": OF_AN_ORDER,
    "capture_method": "automatic",
    "confirmation_method": "automatic",
}
ORDER: Final = "order_12345_payment"
WHY: Final = {"refund_reason": "Product returned", "processed_by": "support_agent_123"}
TOLD: Final = [
    *("payment.succeeded", "payment.failed", "payment.requires_action", "customer.created"),
    *("refund.created", "refund.succeeded", "refund.failed", "customer.updated"),
    *("payment_intent.succeeded", "payment_intent.payment_failed", "charge.dispute.created"),
    *("invoice.payment_succeeded", "customer.subscription.created"),
]

OF_CUSTOMER: Final = {"id", "email", "name", "phone", "created", "updated", "metadata"}
OF_PAYMENT: Final = {
    *("id", "amount", "currency", "status", "source", "customer_id", "description", "created"),
    "metadata",
}
OF_REFUND: Final = {"id", "payment_id", "amount", "reason", "status", "created", "metadata"}
OF_LIST: Final = {"data", "has_more", "next_cursor"}
OF_INTENT: Final = {"id", "object", "client_secret", "created", "status", *WANTED}
OF_METHOD: Final = {"id", "object", "type", "card", "billing_details", "created"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A request, and what of its answer is shown. `{…}` are ids of what the shop has."""

    asked: str
    body: dict[str, Any] | None = None
    status: int = 200
    shown: Any = None
    fields: frozenset[str] | set[str] = frozenset()


def pays(source: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"amount": 1234, "currency": "GBP", "source": source, "description": "Order #12345"}
    return {**body, "customer_id": "{customer}", "metadata": {}, **fields}


def refunds(**fields: Any) -> dict[str, Any]:
    return {"payment_id": "{payment}", **fields}


EXAMPLES: Final = (
    Example(asked="GET /v1/health", shown={"status": "ok", "version": "2025-09-01"}),
    # customers
    Example(
        asked="POST /v1/customers",
        body={**CUSTOMER, "metadata": METADATA},
        status=201,
        shown={**CUSTOMER, "phone": None, "metadata": METADATA},
        fields=OF_CUSTOMER,
    ),
    Example(asked="POST /v1/customers", body=WHO, status=201, shown={**WHO, "metadata": {}}),
    Example(asked="GET /v1/customers/{customer}", shown=WHO, fields=OF_CUSTOMER),
    Example(
        asked="PATCH /v1/customers/{customer}",
        body={"email": "new@example.com", "metadata": METADATA},
        shown={**WHO, "email": "new@example.com", "metadata": METADATA},
    ),
    Example(
        asked="GET /v1/customers?limit=20&starting_after={customer}",
        shown={"data": [], "has_more": False, "next_cursor": None},
    ),
    Example(
        asked="GET /v1/customers?email=dev@example.com&created[gte]=1736720000",
        shown={"has_more": False, "data": [WHO]},
        fields=OF_LIST,
    ),
    Example(asked="DELETE /v1/customers/{customer}", status=204),
    # payments
    Example(
        asked="POST /v1/payments",
        body=pays({"type": "card", "token": "tok_visa_4242"}),
        status=201,
        shown={
            "amount": 1234,
            "currency": "GBP",
            "status": "succeeded",
            "source": {"type": "card", "last4": "4242", "brand": "visa"},
            "customer_id": "{customer}",
            "description": "Order #12345",
            "metadata": {},
        },
        fields=OF_PAYMENT,
    ),
    Example(
        asked="POST /v1/payments",
        body=pays({"type": "bank_transfer", "bank_account": ACCOUNT}),
        status=201,
        shown={"status": "pending", "source": {"type": "bank_transfer", "last4": "5678"}},
        fields=OF_PAYMENT,
    ),
    Example(
        asked="POST /v1/payments",
        body=pays({"type": "apple_pay", "token": "tok_apple_abc123"}),
        status=201,
        shown={"status": "succeeded", "source": {"type": "apple_pay"}},
        fields=OF_PAYMENT,
    ),
    Example(
        asked="POST /v1/payments",
        body=pays({"type": "card", "token": "tok_visa_4242"}, amount=49),
        status=400,
        shown={
            "error": {
                "type": "invalid_request_error",
                "code": "amount_too_small",
                "param": "amount",
            }
        },
    ),
    Example(
        asked="POST /v1/payments",
        body=pays({"type": "card", "token": "tok_visa_4242"}, customer_id="cus_123"),
        status=404,
        shown={"error": {"type": "resource_missing", "code": "customer_not_found"}},
    ),
    Example(
        asked="GET /v1/payments/{payment}", shown={"customer_id": "{customer}"}, fields=OF_PAYMENT
    ),
    Example(
        asked="GET /v1/payments?customer_id={customer}&status=succeeded&limit=1",
        shown={"data": [{"id": "{payment}"}], "has_more": False},
        fields=OF_LIST,
    ),
    Example(
        asked="GET /v1/payments?created[gte]=1736720000&created[lte]=1736720001&starting_after={payment}",
        shown={"data": []},
    ),
    Example(
        asked="POST /v1/payments/{waiting}/confirm",
        body={"return_url": "https://yourapp.com/payment/success"},
        shown={
            "id": "{waiting}",
            "status": "requires_action",
            "next_action": {
                "redirect_to_url": {"return_url": "https://yourapp.com/payment/success"}
            },
        },
    ),
    # refunds
    Example(
        asked="POST /v1/refunds",
        body=refunds(amount=1234, reason="requested_by_customer", metadata={}),
        status=201,
        shown={
            "payment_id": "{payment}",
            "amount": 1234,
            "reason": "requested_by_customer",
            "status": "succeeded",
            "metadata": {},
        },
        fields=OF_REFUND,
    ),
    Example(
        asked="POST /v1/refunds",
        body=refunds(reason="duplicate"),
        status=201,
        shown={"amount": 1234},
    ),
    Example(asked="POST /v1/refunds", body=refunds(amount=1234, reason="fraudulent"), status=201),
    Example(
        asked="POST /v1/refunds",
        body={
            "charge": "{charge}",
            "amount": 1000,
            "reason": "requested_by_customer",
            "metadata": WHY,
        },
        status=201,
        shown={
            "object": "refund",
            "charge": "{charge}",
            "amount": 1000,
            "currency": "usd",
            "status": "succeeded",
            "metadata": WHY,
        },
    ),
    Example(asked="GET /v1/refunds/{refund}", shown={"amount": 10}, fields=OF_REFUND),
    Example(
        asked="GET /v1/refunds?payment_id={refunded}&status=succeeded&limit=20",
        shown={"data": [{"id": "{refund}"}]},
        fields=OF_LIST,
    ),
    # payment methods
    Example(
        asked="POST /v1/payment_methods",
        body={"type": "card", "card": CARD, "billing_details": BILLING},
        status=201,
        shown={
            "object": "payment_method",
            "type": "card",
            "card": {**FACE, "funding": "credit", "country": "US"},
            "billing_details": BILLING,
        },
        fields=OF_METHOD,
    ),
    Example(
        asked="POST /v1/payment_methods/{method}/attach",
        body={"customer": "{customer}"},
        shown={"id": "{method}", "customer": "{customer}"},
        fields=OF_METHOD,
    ),
    # intents
    Example(
        asked="POST /v1/payment_intents",
        body={**WANTED, "customer_id": "{customer}"},
        status=201,
        shown={**WANTED, "object": "payment_intent", "status": "requires_payment_method"},
        fields=OF_INTENT,
    ),
    Example(
        asked="POST /v1/payment_intents/{intent}/confirm",
        body={
            "payment_method": "{method}",
            "return_url": "https://merchant.com/return",
            "use_stripe_sdk": True,
        },
        shown={
            "id": "{intent}",
            "status": "succeeded",
            "amount_received": 2000,
            "charges": {
                "data": [
                    {
                        "amount": 2000,
                        "currency": "usd",
                        "status": "succeeded",
                        "payment_method": {"id": "{method}", "type": "card", "card": FACE},
                    }
                ]
            },
        },
        fields=OF_INTENT,
    ),
    # webhooks
    Example(
        asked="POST /v1/webhook_endpoints",
        body={"url": "https://yourapp.com/webhooks/payments", "enabled_events": TOLD},
        status=201,
        shown={"enabled_events": TOLD, "status": "enabled"},
    ),
    Example(
        asked="GET /v1/events?type=payment_intent.succeeded",
        shown={
            "data": [
                {
                    "object": "event",
                    "type": "payment_intent.succeeded",
                    "data": {
                        "object": {
                            "object": "payment_intent",
                            "amount": 2000,
                            "currency": "usd",
                            "status": "succeeded",
                        }
                    },
                    "livemode": False,
                    "pending_webhooks": 0,
                    "request": {"idempotency_key": "{order}"},
                }
            ]
        },
    ),
)


@pytest.fixture
def ids(extended_merchant: Caller) -> dict[str, str]:
    """What the examples are about, by the names that they have here."""
    shop = extended_merchant

    def made(path: str, body: dict[str, Any], key: str = "") -> dict[str, Any]:
        answer: dict[str, Any] = json_of(shop.post(path, body, key=key))
        assert "error" not in answer, answer
        return answer

    def paid(**fields: Any) -> str:
        by_token = {"type": "card", "token": "tok_visa_4242"}
        body = {"amount": 1234, "currency": "GBP", "source": by_token, **fields}
        return str(made("/v1/payments", body)["id"])

    customer = made("/v1/customers", WHO)["id"]
    refunded = paid()
    once = {"currency": "usd", "payment_method": "pm_card_visa", "confirm": True}
    charge = made("/v1/payment_intents", {"amount": 2000, **once}, ORDER)["latest_charge"]
    return {
        "customer": customer,
        "refunded": refunded,
        "refund": made("/v1/refunds", {"payment_id": refunded, "amount": 10})["id"],
        "payment": paid(customer_id=customer),
        "waiting": paid(source={"type": "card", "token": "tok_3ds"}),
        "method": made("/v1/payment_methods", {"type": "card", "card": CARD})["id"],
        "intent": made("/v1/payment_intents", WANTED)["id"],
        "charge": charge,
        "order": ORDER,
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.asked)
def test_an_example_is_answered_as_it_is_shown(
    extended_merchant: Caller, ids: dict[str, str], example: Example
) -> None:
    method, path = filled(example.asked, ids).split(" ", 1)
    sent = {} if example.body is None else {"json": filled(example.body, ids)}

    ask = extended_merchant.get if method == "GET" else partial(extended_merchant.request, method)
    response = ask(path, **sent)

    assert response.status_code == example.status, response.text
    if example.shown is not None:
        answer = json_of(response)
        assert within(filled(example.shown, ids), answer) == filled(example.shown, ids)
        assert example.fields <= set(answer)


def filled(value: Any, ids: dict[str, str]) -> Any:
    """With the ids in the place of their names."""
    match value:
        case str():
            for name, each in ids.items():
                value = value.replace(f"{{{name}}}", each)
            return value
        case dict():
            return {name: filled(each, ids) for name, each in value.items()}
        case list():
            return [filled(each, ids) for each in value]
        case _:
            return value


def within(shown: Any, answer: Any) -> Any:
    """Of an answer what is shown of it, to be compared; as many things as there are."""
    match shown, answer:
        case dict(), dict():
            return {
                name: within(each, answer[name]) for name, each in shown.items() if name in answer
            }
        case list(), list() if len(shown) == len(answer):
            return [within(*each) for each in zip(shown, answer, strict=True)]
        case _:
            return answer
