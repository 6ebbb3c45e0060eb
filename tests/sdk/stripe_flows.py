"""What merchants do with Stripe's own Python package, flow by flow, each by its name."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest
import stripe

from tests.api.an_api import fresh
from tests.infrastructure.webhooks.a_receiver import Receiver
from tests.sdk.a_shop import DECLINES, ApiKeys, once, the_shopper_decides

CARD: Final = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
MASTERCARD: Final = {**CARD, "number": "5200828282828210"}
PRICE: Final = {"amount": 2000, "currency": "usd", "payment_method_types": ["card"]}
CHALLENGED: Final = "pm_card_threeDSecure2Required"


@dataclass(frozen=True, slots=True)
class Shop:
    """A merchant's program. `v1` and `browser` are the package's own services."""

    v1: Any
    browser: Any
    api_base: str

    @classmethod
    def of(cls, keys: ApiKeys, api_base: str) -> "Shop":
        clients = [
            stripe.StripeClient(key, base_addresses={"api": api_base}, max_network_retries=2)
            for key in (keys.secret, keys.publishable)
        ]
        return cls(clients[0].v1, clients[1].v1, api_base)

    def with_key(self, key: str) -> Any:
        return stripe.StripeClient(
            key, base_addresses={"api": self.api_base}, max_network_retries=2
        ).v1

    def intent(self, **params: Any) -> Any:
        return self.v1.payment_intents.create({**PRICE, **params})

    def paid(self, **params: Any) -> Any:
        intent = self.intent(payment_method="pm_card_visa", confirm=True, **params)
        assert intent.status == "succeeded"
        return intent

    def held(self, **params: Any) -> Any:
        intent = self.intent(
            payment_method="pm_card_visa", confirm=True, capture_method="manual", **params
        )
        assert (intent.status, intent.amount_capturable) == ("requires_capture", 2000)
        return intent

    def method(self, **card: Any) -> Any:
        return self.v1.payment_methods.create({"type": "card", "card": {**CARD, **card}})

    def customer(self, **params: Any) -> Any:
        return self.v1.customers.create({"email": f"{fresh('ada')}@example.com", **params})


Flow = Callable[[Shop], None]
FLOWS: Final[dict[str, Any]] = {}


def flow(name: str) -> Callable[[Flow], Flow]:
    """A flow's name."""

    def named(function: Flow) -> Flow:
        assert name not in FLOWS
        FLOWS[name] = pytest.param(function, id=name)
        return function

    return named


# --- customers ----------------------------------------------------------------------------------


@flow("customer: create, retrieve, update, unset")
def customer_is_kept(shop: Shop) -> None:
    made = shop.customer(name="Ada", metadata={"tier": "gold", "since": "1843"})
    assert shop.v1.customers.retrieve(made.id) == made

    changed = shop.v1.customers.update(
        made.id, {"name": "Ada L.", "email": "", "metadata": {"tier": "", "seat": "4"}}
    )

    assert (changed.name, changed.email) == ("Ada L.", None)
    assert changed.metadata.to_dict() == {"since": "1843", "seat": "4"}
    cleared = shop.v1.customers.update(made.id, {"metadata": ""})
    assert cleared.metadata.to_dict() == {}


@flow("customer: delete, then it says deleted")
def customer_is_deleted(shop: Shop) -> None:
    made = shop.customer(name="Ada")

    gone = shop.v1.customers.delete(made.id)

    assert (gone.id, gone.deleted) == (made.id, True)
    assert shop.v1.customers.retrieve(made.id).deleted is True
    assert shop.v1.customers.list({"email": made.email}).data == []


@flow("customer: address, description, phone")
def customer_has_an_address(shop: Shop) -> None:
    made = shop.customer(
        phone="+441234", description="Counts", address={"line1": "1 Main St", "country": "GB"}
    )

    found = shop.v1.customers.retrieve(made.id)

    assert (found.phone, found.description) == ("+441234", "Counts")
    assert (found.address.line1, found.address.city) == ("1 Main St", None)


@flow("customers: list by email and by creation time")
def customers_are_filtered(shop: Shop) -> None:
    made = [shop.customer() for _ in range(3)]
    by_email = shop.v1.customers.list({"email": made[1].email})
    assert [each.id for each in by_email] == [made[1].id]

    of_today = shop.v1.customers.list({"created": {"gte": made[0].created, "lt": 9_000_000_000}})
    of_before = shop.v1.customers.list({"created": {"lt": made[0].created}})

    assert {each.id for each in of_today} == {each.id for each in made}
    assert of_before.data == []


@flow("customers: auto-paging, forwards and backwards")
def customers_are_paged(shop: Shop) -> None:
    made = [shop.customer().id for _ in range(5)]

    forwards = [each.id for each in shop.v1.customers.list({"limit": 2}).auto_paging_iter()]
    page = shop.v1.customers.list({"limit": 2, "ending_before": made[0]})
    backwards = [each.id for each in page.auto_paging_iter()]

    assert forwards == made[::-1]
    assert backwards == made[1:]


@flow("customers: search by email")
def customers_are_searched(shop: Shop) -> None:
    made = shop.customer()

    found = shop.v1.customers.search({"query": f"email:'{made.email}'"})

    assert [each.id for each in found] == [made.id]


# --- payment methods ----------------------------------------------------------------------------


@flow("payment method: create, retrieve, never the number")
def method_is_kept(shop: Shop) -> None:
    made = shop.v1.payment_methods.create(
        {"type": "card", "card": CARD, "billing_details": {"name": "Ada", "email": "a@b.example"}}
    )

    assert (made.card.brand, made.card.last4, made.card.exp_year) == ("visa", "4242", 2034)
    assert made.billing_details.name == "Ada"
    assert shop.v1.payment_methods.retrieve(made.id) == made
    assert str(CARD["number"]) not in str(made)


@flow("payment method: equal cards have equal fingerprints")
def fingerprints_are_equal(shop: Shop) -> None:
    one, again, other = shop.method(), shop.method(exp_month=1), shop.method(**MASTERCARD)

    assert one.card.fingerprint == again.card.fingerprint != other.card.fingerprint


@flow("payment method: update")
def method_is_updated(shop: Shop) -> None:
    made = shop.method()

    changed = shop.v1.payment_methods.update(
        made.id,
        {
            "card": {"exp_month": 1, "exp_year": 2036},
            "billing_details": {"name": "Grace"},
            "metadata": {"seat": "4"},
        },
    )

    assert (changed.card.exp_month, changed.card.exp_year) == (1, 2036)
    assert (changed.billing_details.name, changed.metadata["seat"]) == ("Grace", "4")


@flow("payment method: attach, list, detach, then it is of no use")
def method_is_attached_and_detached(shop: Shop) -> None:
    customer, method = shop.customer(), shop.method()
    attached = shop.v1.payment_methods.attach(method.id, {"customer": customer.id})
    assert attached.customer == customer.id
    lists = [
        shop.v1.payment_methods.list({"customer": customer.id, "type": "card"}),
        shop.v1.customers.payment_methods.list(customer.id),
    ]
    assert [[each.id for each in found] for found in lists] == [[method.id]] * 2
    assert shop.v1.customers.payment_methods.retrieve(customer.id, method.id).id == method.id

    detached = shop.v1.payment_methods.detach(method.id)

    assert detached.customer is None
    assert shop.v1.customers.payment_methods.list(customer.id).data == []
    with pytest.raises(stripe.InvalidRequestError):
        shop.intent(payment_method=method.id, confirm=True)


@flow("payment method: by a token of a card")
def method_by_token(shop: Shop) -> None:
    made = shop.v1.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}})

    assert made.card.last4 == "4242"
    assert shop.intent(payment_method=made.id, confirm=True).status == "succeeded"


@flow("payment method: a test token is attached to a customer")
def test_token_is_attached(shop: Shop) -> None:
    customer = shop.customer()

    attached = shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})

    assert (attached.customer, attached.card.last4) == (customer.id, "4242")
    assert attached.id != "pm_card_visa"


@flow("payment method: a customer's card pays twice, the second time without its CVC")
def card_on_file_pays_twice(shop: Shop) -> None:
    customer, method = shop.customer(), shop.method()
    shop.v1.payment_methods.attach(method.id, {"customer": customer.id})
    terms = {"customer": customer.id, "payment_method": method.id, "confirm": True}

    first = shop.intent(**terms)
    second = shop.intent(**terms, off_session=True)

    assert (first.status, second.status) == ("succeeded", "succeeded")
    assert first.latest_charge != second.latest_charge


# --- disputes and subscriptions -----------------------------------------------------------------


@flow("dispute: told of, answered, and won")
def dispute_is_won(shop: Shop) -> None:
    intent = shop.intent(payment_method="pm_card_createDispute", confirm=True)

    (found,) = once(lambda: shop.v1.disputes.list({"payment_intent": intent.id}).data, bool)
    assert (found.status, found.charge) == ("needs_response", intent.latest_charge)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.refunds.create({"charge": found.charge})
    assert refused.value.code == "charge_disputed"
    evidence = {"uncategorized_text": "winning_evidence", "customer_name": "Ada"}
    told = shop.v1.disputes.update(found.id, {"evidence": evidence, "submit": True})

    assert (told.status, told.evidence.customer_name) == ("under_review", "Ada")
    won = once(lambda: shop.v1.disputes.retrieve(found.id), lambda each: each.status == "won")
    assert shop.v1.charges.retrieve(won.charge, {"expand": ["dispute"]}).dispute.id == won.id
    assert shop.v1.refunds.create({"charge": won.charge}).status == "succeeded"


@flow("dispute: given up")
def dispute_is_closed(shop: Shop) -> None:
    intent = shop.intent(payment_method="pm_card_createDispute", confirm=True)
    (found,) = once(
        lambda: shop.v1.disputes.list({"charge": intent.latest_charge}).data,
        bool,
    )

    closed = shop.v1.disputes.close(found.id)

    assert closed.status == "lost"


@flow("subscription: a year of a test clock, and its invoices")
def subscription_goes_on(shop: Shop) -> None:
    start = 1_800_000_000
    clock = shop.v1.test_helpers.test_clocks.create({"frozen_time": start, "name": "A year"})
    customer, method = shop.customer(test_clock=clock.id), shop.method()
    shop.v1.payment_methods.attach(method.id, {"customer": customer.id})
    price = {"currency": "usd", "unit_amount": 900, "product_data": {"name": "Beans"}}
    price["recurring"] = {"interval": "month"}

    made = shop.v1.subscriptions.create(
        {
            "customer": customer.id,
            "items": [{"price_data": price, "quantity": 2}],
            "expand": ["latest_invoice.payment_intent"],
        }
    )
    assert (made.status, made.latest_invoice.amount_paid) == ("active", 1800)
    assert made.latest_invoice.payment_intent.status == "succeeded"
    shop.v1.test_helpers.test_clocks.advance(clock.id, {"frozen_time": start + 360 * 86_400})
    find = shop.v1.test_helpers.test_clocks.retrieve
    once(lambda: find(clock.id), lambda each: each.status == "ready")

    invoices = list(shop.v1.invoices.list({"subscription": made.id}).auto_paging_iter())
    assert [each.status for each in invoices] == ["paid"] * 12
    assert shop.v1.subscriptions.update(made.id, {"cancel_at_period_end": True}).cancel_at
    gone = shop.v1.subscriptions.cancel(made.id)
    assert gone.status == "canceled"
    assert [each.id for each in shop.v1.subscriptions.list({"status": "all"})] == [made.id]


@flow("subscription: a first payment that declines, and is made up for")
def subscription_is_made_up_for(shop: Shop) -> None:
    made = shop.v1.subscriptions.create(
        {
            "customer": shop.customer().id,
            "default_payment_method": "pm_card_chargeDeclined",
            "amount": 900,
            "currency": "usd",
            "interval": "month",
        }
    )
    assert made.status == "incomplete"

    paid = shop.v1.invoices.pay(made.latest_invoice, {"payment_method": "pm_card_visa"})

    assert paid.status == "paid"
    assert shop.v1.subscriptions.retrieve(made.id).status == "active"


# --- payment intents ----------------------------------------------------------------------------


@flow("intent: create, then confirm")
def intent_in_two_steps(shop: Shop) -> None:
    intent = shop.intent(description="Two books", metadata={"order_id": fresh("ORD")})
    assert intent.status == "requires_payment_method"
    assert intent.client_secret.startswith(f"{intent.id}_secret_")

    paid = shop.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})

    assert (paid.status, paid.amount_received) == ("succeeded", 2000)
    assert shop.v1.payment_intents.retrieve(intent.id) == paid


@flow("intent: created with a method, then confirmed with it")
def intent_has_its_method(shop: Shop) -> None:
    intent = shop.intent(payment_method=shop.method().id)
    assert intent.status == "requires_confirmation"

    paid = shop.v1.payment_intents.confirm(intent.id)

    assert paid.status == "succeeded"
    assert paid.payment_method == intent.payment_method


@flow("intent: create and confirm in one call")
def intent_in_one_step(shop: Shop) -> None:
    paid = shop.paid(automatic_payment_methods={"enabled": True, "allow_redirects": "never"})

    assert paid.currency == "usd"
    assert shop.v1.charges.retrieve(paid.latest_charge).captured is True


@flow("intent: with payment_method_data")
def intent_with_a_method_on_the_way(shop: Shop) -> None:
    paid = shop.intent(payment_method_data={"type": "card", "card": CARD}, confirm=True)

    assert paid.status == "succeeded"
    assert shop.v1.payment_methods.retrieve(paid.payment_method).card.last4 == "4242"


@flow("intent: update before an attempt")
def intent_is_updated(shop: Shop) -> None:
    intent = shop.intent(metadata={"a": "1", "b": "2"})

    changed = shop.v1.payment_intents.update(
        intent.id, {"amount": 1500, "description": "One book", "metadata": {"a": "", "c": "3"}}
    )
    paid = shop.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})

    assert changed.metadata.to_dict() == {"b": "2", "c": "3"}
    assert (paid.amount_received, paid.description) == (1500, "One book")


@flow("intent: shipping, receipt_email, statement_descriptor are kept")
def intent_keeps_its_terms(shop: Shop) -> None:
    intent = shop.intent(
        shipping={"name": "Ada", "address": {"line1": "1 Main St", "country": "GB"}},
        receipt_email="ada@example.com",
        statement_descriptor_suffix="BOOKS",
        setup_future_usage="off_session",
    )

    found = shop.v1.payment_intents.retrieve(intent.id)

    assert (found.shipping.name, found.shipping.address.line1) == ("Ada", "1 Main St")
    assert (found.receipt_email, found.statement_descriptor_suffix) == ("ada@example.com", "BOOKS")


@flow("intent: a currency without minor units")
def intent_in_yen(shop: Shop) -> None:
    paid = shop.paid(amount=500, currency="jpy")

    assert (paid.amount_received, paid.currency) == (500, "jpy")


@flow("intent: manual capture")
def intent_is_captured(shop: Shop) -> None:
    held = shop.held()
    assert shop.v1.charges.retrieve(held.latest_charge).captured is False

    taken = shop.v1.payment_intents.capture(held.id)

    assert (taken.status, taken.amount_received, taken.amount_capturable) == ("succeeded", 2000, 0)


@flow("intent: partial capture, the rest is released")
def intent_is_captured_in_part(shop: Shop) -> None:
    held = shop.held()

    taken = shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 700})

    assert (taken.status, taken.amount, taken.amount_received) == ("succeeded", 2000, 700)
    assert shop.v1.charges.retrieve(taken.latest_charge).amount_captured == 700
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.capture(held.id)
    assert refused.value.code == "payment_intent_unexpected_state"


@flow("intent: capture of more than is held is refused, and takes nothing")
def capture_of_too_much(shop: Shop) -> None:
    held = shop.held()

    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 2001})

    assert refused.value.code == "amount_too_large"
    assert shop.v1.payment_intents.retrieve(held.id).status == "requires_capture"


@flow(
    "intent: capture of more than is held names amount_to_capture",
)
def capture_of_too_much_names_its_parameter(shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.capture(shop.held().id, {"amount_to_capture": 2001})

    assert refused.value.param == "amount_to_capture"


@flow(
    "intent: capture and cancel with expand=latest_charge show the charge of now",
)
def expanded_charge_is_of_now(shop: Shop) -> None:
    params = {"expand": ["latest_charge"]}

    taken = shop.v1.payment_intents.capture(shop.held().id, params)
    gone = shop.v1.payment_intents.cancel(shop.held().id, params)

    assert (taken.latest_charge.captured, taken.latest_charge.amount_captured) == (True, 2000)
    assert (gone.latest_charge.captured, gone.latest_charge.refunded) == (False, True)


@flow(
    "intent: metadata and description of a paid one are updated",
)
def paid_intent_is_updated(shop: Shop) -> None:
    paid = shop.paid(metadata={"a": "1"})

    changed = shop.v1.payment_intents.update(
        paid.id, {"metadata": {"b": "2"}, "description": "Two books"}
    )

    assert changed.metadata.to_dict() == {"a": "1", "b": "2"}
    assert (changed.description, changed.status) == ("Two books", "succeeded")


@flow("intent: the amount of a paid one stays")
def paid_amount_stays(shop: Shop) -> None:
    paid = shop.paid()

    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.payment_intents.update(paid.id, {"amount": 1})

    assert shop.v1.payment_intents.retrieve(paid.id).amount == 2000


@flow("intent: capture_method automatic_async pays at once")
def intent_is_captured_by_itself(shop: Shop) -> None:
    assert shop.paid(capture_method="automatic_async").amount_received == 2000


@flow("intent: confirm of a paid one is refused, and charges nothing")
def paid_is_not_confirmed(shop: Shop) -> None:
    paid = shop.paid()

    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.confirm(paid.id, {"payment_method": "pm_card_visa"})

    assert refused.value.code == "payment_intent_unexpected_state"
    assert len(shop.v1.charges.list({"payment_intent": paid.id}).data) == 1


@flow("intent: cancel before an attempt")
def intent_is_canceled(shop: Shop) -> None:
    intent = shop.intent()

    gone = shop.v1.payment_intents.cancel(intent.id, {"cancellation_reason": "abandoned"})

    assert (gone.status, gone.cancellation_reason) == ("canceled", "abandoned")
    assert gone.canceled_at is not None
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert refused.value.code == "payment_intent_unexpected_state"


@flow("intent: cancel releases what was held")
def hold_is_released(shop: Shop) -> None:
    held = shop.held()

    gone = shop.v1.payment_intents.cancel(held.id)

    assert (gone.status, gone.amount_capturable) == ("canceled", 0)
    charge = shop.v1.charges.retrieve(held.latest_charge)
    assert (charge.captured, charge.refunded) == (False, True)


@flow("intent: a paid one is not canceled")
def paid_is_not_canceled(shop: Shop) -> None:
    paid = shop.paid()

    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.cancel(paid.id)

    assert refused.value.code == "payment_intent_unexpected_state"
    assert refused.value.http_status == 400
    assert shop.v1.payment_intents.retrieve(paid.id).status == "succeeded"


@flow("intents: list by customer, auto-paging")
def intents_are_listed(shop: Shop) -> None:
    customer = shop.customer()
    made = [shop.intent(customer=customer.id).id for _ in range(3)]
    shop.intent()

    page = shop.v1.payment_intents.list({"customer": customer.id, "limit": 2})

    assert [each.id for each in page.auto_paging_iter()] == made[::-1]


@flow("intents: search by metadata")
def intents_are_searched(shop: Shop) -> None:
    order = fresh("ORD")
    made = shop.intent(metadata={"order_id": order})

    found = shop.v1.payment_intents.search({"query": f"metadata['order_id']:'{order}'"})

    assert [each.id for each in found] == [made.id]


@flow("intent: expand, dotted, on a retrieve and on a list")
def intent_is_expanded(shop: Shop) -> None:
    customer = shop.customer(name="Ada")
    paid = shop.paid(customer=customer.id, expand=["latest_charge.customer", "customer"])
    assert (paid.customer.name, paid.latest_charge.customer.id) == ("Ada", customer.id)

    found = shop.v1.payment_intents.retrieve(paid.id, {"expand": ["latest_charge"]})
    page = shop.v1.payment_intents.list({"expand": ["data.customer"]})

    assert found.latest_charge.payment_intent == paid.id
    assert page.data[0].customer.name == "Ada"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.retrieve(paid.id, {"expand": ["nothing"]})
    assert refused.value.param == "expand[0]"


@flow(
    "intent: expand of what does not exist is refused before the bank is asked",
)
def expand_is_checked_first(shop: Shop) -> None:
    intent, at_once = shop.intent(), {"max_network_retries": 0}

    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_intents.confirm(
            intent.id, {"payment_method": "pm_card_visa", "expand": ["nothing"]}, at_once
        )

    assert refused.value.param == "expand[0]"
    assert shop.v1.charges.list({"payment_intent": intent.id}).data == []


@flow(
    "intent: capture_method manual given with the confirmation holds, and does not take",
)
def confirmation_says_to_hold(shop: Shop) -> None:
    intent = shop.intent()

    held = shop.v1.payment_intents.confirm(
        intent.id, {"payment_method": "pm_card_visa", "capture_method": "manual"}
    )

    assert (held.status, held.amount_received) == ("requires_capture", 0)


@flow(
    "intent: metadata given with a capture is kept",
)
def capture_has_metadata(shop: Shop) -> None:
    taken = shop.v1.payment_intents.capture(shop.held().id, {"metadata": {"box": "7"}})

    assert taken.metadata.to_dict() == {"box": "7"}


@flow(
    "intent: another customer's card is refused",
)
def another_customers_card(shop: Shop) -> None:
    owner, other, method = shop.customer(), shop.customer(), shop.method()
    shop.v1.payment_methods.attach(method.id, {"customer": owner.id})

    with pytest.raises(stripe.InvalidRequestError):
        shop.intent(customer=other.id, payment_method=method.id, confirm=True)


# --- declines -----------------------------------------------------------------------------------


def declined_then_paid(token: str) -> Flow:
    code, decline_code = DECLINES[token]

    def declined(shop: Shop) -> None:
        intent = shop.intent()

        with pytest.raises(stripe.CardError) as refused:
            shop.v1.payment_intents.confirm(intent.id, {"payment_method": token})

        error: Any = refused.value.error
        assert (refused.value.http_status, refused.value.code) == (402, code)
        assert error.decline_code == decline_code
        assert error.payment_intent.status == "requires_payment_method"
        assert error.payment_intent.last_payment_error.code == code
        assert error.charge.startswith("ch_")
        assert shop.v1.charges.retrieve(error.charge).status == "failed"
        paid = shop.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
        assert (paid.status, paid.last_payment_error) == ("succeeded", None)
        charges = shop.v1.charges.list({"payment_intent": intent.id})
        assert [each.status for each in charges] == ["succeeded", "failed"]

    return declined


flow("decline: pm_card_chargeDeclined, then another card on the same intent")(
    declined_then_paid("pm_card_chargeDeclined")
)
flow("decline: pm_card_visa_chargeDeclined, then another card on the same intent")(
    declined_then_paid("pm_card_visa_chargeDeclined")
)
flow("decline: pm_card_chargeDeclinedInsufficientFunds, then another card on the same intent")(
    declined_then_paid("pm_card_chargeDeclinedInsufficientFunds")
)
flow("decline: pm_card_visa_chargeDeclinedInsufficientFunds, then another card on the same intent")(
    declined_then_paid("pm_card_visa_chargeDeclinedInsufficientFunds")
)
flow("decline: pm_card_chargeDeclinedExpiredCard, then another card on the same intent")(
    declined_then_paid("pm_card_chargeDeclinedExpiredCard")
)
flow("decline: pm_card_chargeDeclinedIncorrectCvc, then another card on the same intent")(
    declined_then_paid("pm_card_chargeDeclinedIncorrectCvc")
)
flow("decline: pm_card_chargeDeclinedProcessingError, then another card on the same intent")(
    declined_then_paid("pm_card_chargeDeclinedProcessingError")
)


@flow("decline: create and confirm in one call, then retry on the intent of the error")
def declined_in_one_step(shop: Shop) -> None:
    with pytest.raises(stripe.CardError) as refused:
        shop.intent(payment_method="pm_card_chargeDeclined", confirm=True)

    error: Any = refused.value.error
    paid = shop.v1.payment_intents.confirm(
        error.payment_intent.id, {"payment_method": "pm_card_visa"}
    )

    assert paid.status == "succeeded"


@flow("decline: a number that is none, before the bank is asked")
def number_is_wrong(shop: Shop) -> None:
    with pytest.raises(stripe.CardError) as refused:
        shop.method(number="4242424242424241")

    assert refused.value.code == "incorrect_number"


@flow("decline: an expired card, before the bank is asked")
def card_is_expired(shop: Shop) -> None:
    with pytest.raises(stripe.CardError) as refused:
        shop.method(exp_year=2020)

    assert refused.value.code == "expired_card"


# --- 3-D Secure ---------------------------------------------------------------------------------


@flow("3-D Secure: the shopper approves, and the intent goes on by itself")
def shopper_approves(shop: Shop) -> None:
    intent = shop.intent(
        payment_method=CHALLENGED, confirm=True, return_url="https://shop.example/done?a=1"
    )
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")
    assert intent.next_action.redirect_to_url.return_url == "https://shop.example/done?a=1"

    answer = the_shopper_decides(intent.next_action.redirect_to_url.url, "approve")

    location = answer.headers["Location"]
    assert location == f"https://shop.example/done?a=1&payment_intent={intent.id}"
    after = once(
        lambda: shop.v1.payment_intents.retrieve(intent.id), lambda one: one.status == "succeeded"
    )
    assert (after.amount_received, after.next_action) == (2000, None)


@flow("3-D Secure: the shopper refuses, and another card pays")
def shopper_refuses(shop: Shop) -> None:
    intent = shop.intent()
    asked = shop.v1.payment_intents.confirm(intent.id, {"payment_method": CHALLENGED})

    the_shopper_decides(asked.next_action.redirect_to_url.url, "refuse")

    after = once(
        lambda: shop.v1.payment_intents.retrieve(intent.id),
        lambda one: one.status == "requires_payment_method",
    )
    assert after.last_payment_error.code == "authentication_required"
    paid = shop.v1.payment_intents.confirm(intent.id, {"payment_method": "pm_card_visa"})
    assert paid.status == "succeeded"


@flow("3-D Secure: with manual capture it is held, then captured")
def shopper_approves_a_hold(shop: Shop) -> None:
    intent = shop.intent(payment_method=CHALLENGED, confirm=True, capture_method="manual")

    the_shopper_decides(intent.next_action.redirect_to_url.url, "approve")

    once(
        lambda: shop.v1.payment_intents.retrieve(intent.id),
        lambda one: one.status == "requires_capture",
    )
    assert shop.v1.payment_intents.capture(intent.id).status == "succeeded"


@flow("3-D Secure: given up while the shopper is asked")
def given_up_while_asked(shop: Shop) -> None:
    intent = shop.intent(payment_method=CHALLENGED, confirm=True)

    gone = shop.v1.payment_intents.cancel(intent.id)

    assert gone.status == "canceled"


# --- charges, refunds, balance ------------------------------------------------------------------


@flow("charge: retrieve and list")
def charges_are_read(shop: Shop) -> None:
    customer = shop.customer()
    paid = shop.paid(customer=customer.id)
    charge = shop.v1.charges.retrieve(paid.latest_charge, {"expand": ["payment_intent"]})
    assert (charge.paid, charge.amount, charge.payment_intent.id) == (True, 2000, paid.id)
    assert charge.payment_method_details.card.last4 == "4242"

    found = shop.v1.charges.list({"customer": customer.id})

    assert [each.id for each in found] == [paid.latest_charge]


@flow("refund: all of it, by payment_intent")
def refund_of_everything(shop: Shop) -> None:
    paid = shop.paid()

    refund = shop.v1.refunds.create(
        {"payment_intent": paid.id, "reason": "requested_by_customer", "metadata": {"a": "1"}}
    )

    assert (refund.status, refund.amount, refund.currency) == ("succeeded", 2000, "usd")
    assert (refund.charge, refund.payment_intent) == (paid.latest_charge, paid.id)
    assert shop.v1.refunds.retrieve(refund.id) == refund
    assert shop.v1.charges.retrieve(paid.latest_charge).refunded is True


@flow("refund: in parts, by charge, and never more than was paid")
def refund_in_parts(shop: Shop) -> None:
    charge_id = shop.paid().latest_charge
    for amount in (500, 700):
        shop.v1.refunds.create({"charge": charge_id, "amount": amount})

    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.refunds.create({"charge": charge_id, "amount": 801})

    assert refused.value.http_status == 400
    charge = shop.v1.charges.retrieve(charge_id)
    assert (charge.amount_refunded, charge.refunded) == (1200, False)
    rest = shop.v1.refunds.create({"charge": charge_id})
    assert rest.amount == 800


@flow("refund: of what is refunded says charge_already_refunded")
def refund_twice(shop: Shop) -> None:
    paid = shop.paid()
    shop.v1.refunds.create({"payment_intent": paid.id})

    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.refunds.create({"payment_intent": paid.id})

    assert refused.value.code == "charge_already_refunded"


@flow("refund: its metadata is updated")
def refund_is_updated(shop: Shop) -> None:
    refund = shop.v1.refunds.create({"payment_intent": shop.paid().id})

    changed = shop.v1.refunds.update(refund.id, {"metadata": {"ticket": "4711"}})

    assert changed.metadata["ticket"] == "4711"


@flow("refunds: list by charge and by payment_intent, auto-paging")
def refunds_are_listed(shop: Shop) -> None:
    paid = shop.paid()
    made = [shop.v1.refunds.create({"payment_intent": paid.id, "amount": 100}).id for _ in range(3)]
    shop.v1.refunds.create({"payment_intent": shop.paid().id})

    by_charge = shop.v1.refunds.list({"charge": paid.latest_charge, "limit": 2})
    by_intent = shop.v1.refunds.list({"payment_intent": paid.id})

    assert [each.id for each in by_charge.auto_paging_iter()] == made[::-1]
    assert [each.id for each in by_intent] == made[::-1]


@flow("refund: expand its charge")
def refund_is_expanded(shop: Shop) -> None:
    paid = shop.paid()

    refund = shop.v1.refunds.create(
        {"payment_intent": paid.id, "amount": 300, "expand": ["charge", "payment_intent"]}
    )

    assert (refund.charge.amount_refunded, refund.payment_intent.id) == (300, paid.id)


@flow("balance: what was paid and given back")
def balance_is_read(shop: Shop) -> None:
    paid = shop.paid()
    shop.v1.refunds.create({"payment_intent": paid.id, "amount": 500})

    (available,) = shop.v1.balance.retrieve().available

    assert (available.amount, available.currency) == (1500, "usd")


@flow("events: a payment's are listed and retrieved")
def events_are_read(shop: Shop) -> None:
    paid = shop.paid()

    found = shop.v1.events.list({"type": "payment_intent.succeeded"})

    assert [each.data.object.id for each in found] == [paid.id]
    assert shop.v1.events.retrieve(found.data[0].id).type == "payment_intent.succeeded"


@flow("charges: search by customer")
def charges_are_searched(shop: Shop) -> None:
    customer = shop.customer()
    paid = shop.paid(customer=customer.id)

    found = shop.v1.charges.search({"query": f"customer:'{customer.id}'"})

    assert [each.id for each in found] == [paid.latest_charge]


@flow("balance transactions: list")
def balance_transactions_are_listed(shop: Shop) -> None:
    paid = shop.paid()

    (found,) = shop.v1.balance_transactions.list()

    assert (found.amount, found.source) == (2000, paid.latest_charge)


@flow("webhook endpoint: create, list, update, delete")
def webhook_endpoint_is_kept(shop: Shop) -> None:
    made = shop.v1.webhook_endpoints.create(
        {"url": "https://shop.example/hooks", "enabled_events": ["payment_intent.succeeded"]}
    )
    assert made.secret.startswith("whsec_")
    shop.v1.webhook_endpoints.update(made.id, {"enabled_events": ["*"]})

    (found,) = shop.v1.webhook_endpoints.list()

    assert (found.id, list(found.enabled_events)) == (made.id, ["*"])
    assert shop.v1.webhook_endpoints.delete(made.id).deleted is True


@flow("webhooks: what is delivered is verified, and is the event")
def delivery_is_verified(shop: Shop) -> None:
    with Receiver() as receiver:
        params: Any = {"url": receiver.url, "enabled_events": ["payment_intent.succeeded"]}
        made = shop.v1.webhook_endpoints.create(params)
        paid = shop.paid()

        (delivered,) = once(lambda: receiver.delivered, lambda found: len(found) == 1)

    header = delivered.headers["stripe-signature"]
    event = stripe.Webhook.construct_event(delivered.body, header, made.secret)
    assert (event.type, event.data.object.id) == ("payment_intent.succeeded", paid.id)
    assert event.data.object.status == "succeeded"
    (found,) = shop.v1.events.list({"type": "payment_intent.succeeded"})
    assert found.id == event.id
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(delivered.body + b" ", header, made.secret)


# --- idempotency, keys, errors ------------------------------------------------------------------


@flow("idempotency: the same call again is the same answer, and one charge")
def call_is_replayed(shop: Shop) -> None:
    params = {**PRICE, "payment_method": "pm_card_visa", "confirm": True}
    options = {"idempotency_key": fresh("key")}

    first = shop.v1.payment_intents.create(params, options)
    again = shop.v1.payment_intents.create(params, options)

    assert again == first
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert again.last_response.idempotency_key == options["idempotency_key"]
    assert len(shop.v1.payment_intents.list().data) == 1


@flow("idempotency: a decline is an answer, and replayed")
def decline_is_replayed(shop: Shop) -> None:
    intent, options = shop.intent(), {"idempotency_key": fresh("key")}
    answers = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as refused:
            shop.v1.payment_intents.confirm(
                intent.id, {"payment_method": "pm_card_chargeDeclined"}, options
            )
        answers.append(refused.value.http_body)

    assert answers[0] == answers[1]
    assert len(shop.v1.charges.list({"payment_intent": intent.id}).data) == 1


@flow("idempotency: another call under the same key is an IdempotencyError")
def key_is_reused(shop: Shop) -> None:
    options = {"idempotency_key": fresh("key")}
    shop.v1.payment_intents.create(PRICE, options)

    with pytest.raises(stripe.IdempotencyError) as refused:
        shop.v1.payment_intents.create({**PRICE, "amount": 2001}, options)

    assert refused.value.http_status == 400


@flow("publishable key: a method, an intent, its confirmation with the secret")
def browser_pays(shop: Shop) -> None:
    method = shop.browser.payment_methods.create({"type": "card", "card": CARD})
    intent = shop.browser.payment_intents.create(PRICE)
    secret = {"client_secret": intent.client_secret}

    paid = shop.browser.payment_intents.confirm(intent.id, {"payment_method": method.id, **secret})

    assert paid.status == "succeeded"
    assert shop.browser.payment_intents.retrieve(intent.id, secret) == paid


@flow("publishable key: not what needs a secret key, and no intent without its secret")
def browser_may_not(shop: Shop) -> None:
    intent = shop.intent()
    for forbidden in (shop.browser.customers.create, shop.browser.payment_intents.list):
        with pytest.raises(stripe.PermissionError) as refused:
            forbidden({})
        assert refused.value.error is not None
        assert refused.value.error.code == "publishable_key_not_allowed"

    for params in ({}, {"client_secret": f"{intent.id}_secret_x"}):
        with pytest.raises(stripe.InvalidRequestError) as missing:
            shop.browser.payment_intents.retrieve(intent.id, params)
        assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")


@flow("error: a key that is none is an AuthenticationError")
def key_is_wrong(shop: Shop) -> None:
    with pytest.raises(stripe.AuthenticationError) as refused:
        shop.with_key("sk_test_nobodys").customers.list()

    assert refused.value.http_status == 401
    assert refused.value.request_id is not None


@flow("error: what is not there is resource_missing")
def nothing_there(shop: Shop) -> None:
    finds = (
        shop.v1.payment_intents.retrieve,
        shop.v1.customers.retrieve,
        shop.v1.payment_methods.retrieve,
        shop.v1.charges.retrieve,
        shop.v1.refunds.retrieve,
    )
    for find in finds:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            find("pi_nobodys")
        assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


@flow("error: parameters that are missing, unknown, or wrong have Stripe's codes")
def parameters_are_wrong(shop: Shop) -> None:
    wrong = [
        ({"currency": "usd"}, "parameter_missing", "amount"),
        ({**PRICE, "colour": "red"}, "parameter_unknown", "colour"),
        ({**PRICE, "amount": "ten"}, "parameter_invalid", "amount"),
        ({**PRICE, "customer": "cus_nobodys"}, "resource_missing", "customer"),
    ]
    for params, code, param in wrong:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            shop.v1.payment_intents.create(params)
        assert (refused.value.code, refused.value.param) == (code, param)


@flow("answers: Request-Id, and Stripe-Version as it was sent")
def answers_have_their_headers(shop: Shop) -> None:
    version = "2025-03-31.basil"

    made = shop.v1.customers.create({}, {"stripe_version": version})

    assert made.last_response.request_id.startswith("req_")
    assert made.last_response.headers["Stripe-Version"] == version
    assert abs(made.created - time.time()) < 60


@flow("the module's own way: stripe.api_key, stripe.PaymentIntent")
def module_level_calls(shop: Shop) -> None:
    options: Any = {"api_key": shop.v1.payment_intents._requestor.api_key}
    before, stripe.api_base = stripe.api_base, shop.api_base
    try:
        intent = stripe.PaymentIntent.create(amount=2000, currency="usd", **options)
        paid = stripe.PaymentIntent.confirm(intent.id, payment_method="pm_card_visa", **options)
        refund = stripe.Refund.create(payment_intent=intent.id, **options)
    finally:
        stripe.api_base = before

    assert (paid.status, refund.status) == ("succeeded", "succeeded")


# --- tokens, and methods that settle later ------------------------------------------------------


@flow("token: made in the browser, made a method of on the server, and used once")
def token_is_used_once(shop: Shop) -> None:
    token = shop.browser.tokens.create({"card": CARD})
    assert (token.object, token.type, token.card.last4, token.used) == (
        "token",
        "card",
        "4242",
        False,
    )

    method = shop.v1.payment_methods.create({"type": "card", "card": {"token": token.id}})

    assert method.card.last4 == "4242"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        shop.v1.payment_methods.create({"type": "card", "card": {"token": token.id}})
    assert (refused.value.code, refused.value.param) == ("token_already_used", "card[token]")


LATER: Final = {"amount": 2000, "currency": "gbp", "payment_method_types": ["bacs_debit"]}
ACCOUNT: Final = {
    "type": "bacs_debit",
    "bacs_debit": {"account_number": "00012345", "sort_code": "108800"},
    "billing_details": {"name": "Jenny Rosen", "email": "jenny@example.com"},
}


def settled(shop: Shop, intent: Any) -> Any:
    """The intent once it is processing no more."""
    assert intent.status == "processing"
    find = shop.v1.payment_intents.retrieve
    return once(lambda: find(intent.id), lambda found: found.status != "processing")


@flow("bacs_debit: processing, then succeeded, then refunded in part")
def debit_settles_later(shop: Shop) -> None:
    intent = shop.v1.payment_intents.create(
        {**LATER, "payment_method_data": ACCOUNT, "confirm": True}
    )

    paid = settled(shop, intent)

    assert (paid.status, paid.amount_received) == ("succeeded", 2000)
    details = shop.v1.charges.retrieve(paid.latest_charge).payment_method_details
    assert (details.type, details.bacs_debit.last4) == ("bacs_debit", "2345")
    refund = shop.v1.refunds.create({"payment_intent": intent.id, "amount": 500})
    assert refund.status == "succeeded"


@flow("bacs_debit: a debit that fails leaves the intent to be tried again")
def debit_fails_later(shop: Shop) -> None:
    intent = shop.v1.payment_intents.create(
        {**LATER, "payment_method": "pm_bacsDebit_debitNotAuthorized", "confirm": True}
    )

    failed = settled(shop, intent)

    assert failed.status == "requires_payment_method"
    assert failed.last_payment_error.decline_code == "debit_not_authorized"
    stored = shop.v1.payment_methods.create(ACCOUNT)
    again = shop.v1.payment_intents.confirm(intent.id, {"payment_method": stored.id})
    assert settled(shop, again).status == "succeeded"
