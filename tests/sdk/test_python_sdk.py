"""Our own Python package against the running system: what its README says."""

import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

import payments
from payments._params import Card
from tests.api.an_api import fresh
from tests.sdk.a_shop import DECLINES, ApiKeys, once, the_shopper_decides

CARD: Final[Card] = {
    "number": "4242424242424242",
    "exp_month": 12,
    "exp_year": 2034,
    "cvc": "123",
}


@pytest.fixture(autouse=True)
def configured(keys: ApiKeys, api_base: str) -> Iterator[None]:
    before = payments.api_key, payments.api_base
    payments.api_key, payments.api_base = keys.secret, api_base
    yield
    payments.api_key, payments.api_base = before


def an_intent(**params: Any) -> payments.PaymentIntent:
    return payments.PaymentIntent.create(**{"amount": 2000, "currency": "usd", **params})


def paid(**params: Any) -> payments.PaymentIntent:
    return an_intent(payment_method="pm_card_visa", confirm=True, **params)


def test_the_example_of_the_readme_goes_through() -> None:
    intent = payments.PaymentIntent.create(
        amount=2000,
        currency="usd",
        payment_method_types=["card"],
        metadata={"order_id": fresh("ORD")},
    )

    confirmed = payments.PaymentIntent.confirm(intent.id, payment_method="pm_card_visa")

    assert (intent.status, confirmed.status) == ("requires_payment_method", "succeeded")
    assert payments.PaymentIntent.retrieve(intent.id) == confirmed
    assert confirmed.charges.data[0].payment_method.card.last4 == "4242"
    assert confirmed.metadata.order_id == intent.metadata["order_id"]


def test_an_object_has_attributes_items_and_a_plain_form() -> None:
    intent = an_intent(expand=["customer"])

    assert intent.id == intent["id"]
    assert "client_secret" in intent
    assert "colour" not in intent
    assert json.loads(json.dumps(intent.to_dict()))["id"] == intent.id
    assert intent.last_response is not None
    assert intent.last_response.status == 201
    assert str(intent.last_response.request_id).startswith("req_")
    with pytest.raises(AttributeError, match="colour"):
        _ = intent.colour


def test_customers_are_created_changed_listed_and_erased() -> None:
    email = f"{fresh('ada')}@example.com"
    made = payments.Customer.create(email=email, name="Ada", metadata={"a": "1", "b": "2"})
    changed = payments.Customer.modify(made.id, name=None, metadata={"a": None})
    assert (changed.name, changed.metadata) == (None, {"b": "2"})
    (found,) = payments.Customer.list(email=email)
    assert found == payments.Customer.retrieve(made.id)

    gone = payments.Customer.delete(made.id)

    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "customer")
    with pytest.raises(payments.InvalidRequestError) as refused:
        payments.Customer.retrieve(made.id)
    assert (refused.value.http_status, refused.value.code) == (404, "customer_not_found")


def test_a_list_goes_on_by_itself_in_both_directions() -> None:
    made = [payments.Customer.create().id for _ in range(5)]

    forwards = [each.id for each in payments.Customer.list(limit=2).auto_paging_iter()]
    page = payments.Customer.list(limit=2, ending_before=made[0])
    backwards = [each.id for each in page.auto_paging_iter()]
    none = payments.Customer.list(created={"lt": 1_000_000_000})

    assert (forwards, backwards) == (made[::-1], made[1:])
    assert (len(none), list(none.auto_paging_iter())) == (0, [])


def test_a_method_is_attached_pays_and_is_detached() -> None:
    customer = payments.Customer.create(name="Ada")
    method = payments.PaymentMethod.create(
        type="card", card=CARD, billing_details={"name": "Ada", "address": {"country": "GB"}}
    )
    attached = payments.PaymentMethod.attach(method.id, customer=customer.id)
    assert attached.customer == customer.id
    assert [each.id for each in payments.Customer.list_payment_methods(customer.id)] == [method.id]
    assert an_intent(customer=customer.id, payment_method=method.id, confirm=True).status == (
        "succeeded"
    )

    detached = payments.PaymentMethod.detach(method.id)

    assert detached.customer is None
    assert payments.PaymentMethod.list(customer=customer.id).data == []


def test_a_hold_is_captured_in_part_and_another_is_released() -> None:
    held, other = (paid(capture_method="manual") for _ in range(2))

    taken = payments.PaymentIntent.capture(held.id, amount_to_capture=700)
    gone = payments.PaymentIntent.cancel(other.id, cancellation_reason="abandoned")

    assert (held.status, taken.status, taken.amount_received) == (
        "requires_capture",
        "succeeded",
        700,
    )
    assert (gone.status, gone.cancellation_reason) == ("canceled", "abandoned")


@pytest.mark.parametrize(("token", "codes"), DECLINES.items())
def test_a_decline_is_a_card_error_and_the_intent_may_be_tried_again(
    token: str, codes: tuple[str, str | None]
) -> None:
    intent = an_intent()

    with pytest.raises(payments.CardError) as refused:
        payments.PaymentIntent.confirm(intent.id, payment_method=token)

    error = refused.value
    assert (error.http_status, error.code, error.decline_code) == (402, *codes)
    assert error.param == "payment_method"
    assert isinstance(error.payment_intent, payments.PaymentIntent)
    assert error.payment_intent.status == "requires_payment_method"
    again = payments.PaymentIntent.confirm(error.payment_intent.id, payment_method="pm_card_visa")
    assert again.status == "succeeded"


def test_a_shopper_approves_and_the_intent_goes_on() -> None:
    intent = an_intent(payment_method="pm_card_threeDSecure2Required", confirm=True)
    assert intent.status == "requires_action"

    the_shopper_decides(intent.next_action.redirect_to_url.url, "approve")

    after = once(
        lambda: payments.PaymentIntent.retrieve(intent.id), lambda one: one.status == "succeeded"
    )
    assert after.amount_received == 2000


def test_refunds_are_made_by_charge_and_by_intent_and_listed() -> None:
    intent = paid()
    by_charge = payments.Refund.create(charge=intent.latest_charge, amount=500)
    by_intent = payments.Refund.create(payment_intent=intent.id, reason="duplicate")

    found = payments.Refund.list(payment_intent=intent.id)

    assert [each.id for each in found] == [by_intent.id, by_charge.id]
    assert (by_intent.amount, payments.Refund.retrieve(by_charge.id)) == (1500, by_charge)
    charge = payments.Charge.retrieve(intent.latest_charge, expand=["payment_intent"])
    assert (charge.refunded, charge.payment_intent.id) == (True, intent.id)
    assert [each.id for each in payments.Charge.list(payment_intent=intent.id)] == [charge.id]


def test_the_balance_is_what_was_paid_and_not_given_back() -> None:
    intent = paid()
    payments.Refund.create(payment_intent=intent.id, amount=500)

    balance = payments.Balance.retrieve()

    assert [each.amount for each in balance.available] == [1500]


def test_events_are_read() -> None:
    intent = paid()

    (found,) = payments.Event.list(type="payment_intent.succeeded")

    assert payments.Event.retrieve(found.id).data.object.id == intent.id


def test_a_call_under_the_same_key_is_the_same_call() -> None:
    key = fresh("key")
    first, again = (paid(idempotency_key=key) for _ in range(2))

    with pytest.raises(payments.IdempotencyError) as refused:
        paid(idempotency_key=key, description="another")

    assert first == again
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert (refused.value.http_status, refused.value.code) == (409, "key_reused")
    assert len(payments.PaymentIntent.list()) == 1


def test_refusals_are_classes(keys: ApiKeys) -> None:
    with pytest.raises(payments.AuthenticationError) as nobody:
        payments.Customer.list(api_key="sk_test_nobodys")
    with pytest.raises(payments.PermissionError) as forbidden:
        payments.Customer.list(api_key=keys.publishable)
    with pytest.raises(payments.InvalidRequestError) as wrong:
        an_intent(amount=0)
    with pytest.raises(payments.InvalidRequestError) as conflict:
        payments.PaymentIntent.capture(an_intent().id)

    assert (nobody.value.http_status, nobody.value.code) == (401, "invalid_api_key")
    assert (forbidden.value.http_status, forbidden.value.code) == (
        403,
        "publishable_key_not_allowed",
    )
    assert (wrong.value.http_status, wrong.value.param) == (400, "amount")
    assert (conflict.value.http_status, conflict.value.code) == (
        409,
        "payment_intent_unexpected_state",
    )
    assert str(conflict.value.request_id).startswith("req_")


def test_a_publishable_key_confirms_with_the_intents_secret(keys: ApiKeys) -> None:
    intent = an_intent()

    with pytest.raises(payments.InvalidRequestError):
        payments.PaymentIntent.retrieve(intent.id, api_key=keys.publishable)
    confirmed = payments.PaymentIntent.confirm(
        intent.id,
        payment_method="pm_card_visa",
        client_secret=intent.client_secret,
        api_key=keys.publishable,
    )

    assert confirmed.status == "succeeded"


# --- webhooks -----------------------------------------------------------------------------------

SECRET = "whsec_test"
BODY = b'{"id":"evt_1","object":"event","type":"x","data":{"object":{"id":"pi_1","object":"payment_intent"}}}'


def signed(at: int, secret: str = SECRET) -> str:
    mark = hmac.new(secret.encode(), b"%d." % at + BODY, hashlib.sha256).hexdigest()
    return f"t={at},v1={mark}"


def test_an_event_that_we_signed_is_read() -> None:
    now = int(time.time())
    rotated = f"{signed(now, 'whsec_old')},{signed(now).partition(',')[2]}"

    for header in (signed(now), rotated, f"{signed(now)},v0=abc", signed(now).replace(",", ", ")):
        event = payments.Webhook.construct_event(BODY, header, SECRET)

        assert isinstance(event, payments.Event)
        assert isinstance(event.data.object, payments.PaymentIntent)
    text = payments.Webhook.construct_event(BODY.decode(), signed(1), SECRET, tolerance=0)
    assert text.id == "evt_1"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=1",
        "v1=abc",
        "t=x,v1=abc",
        "t=1,v1=ä",
        signed(int(time.time()), "whsec_other"),
        signed(int(time.time()) - 301),
        signed(int(time.time()) + 24 * 3600),
    ],
    ids=["empty", "no mark", "no time", "no number", "no hex", "another's", "old", "of tomorrow"],
)
def test_an_event_that_we_did_not_sign_just_now_is_refused(header: str) -> None:
    with pytest.raises(payments.SignatureVerificationError):
        payments.Webhook.construct_event(BODY, header, SECRET)
