"""What the API has, a class each. An object's fields are those that the API answered."""

from __future__ import annotations

import builtins
from collections.abc import Mapping
from typing import Any, TypeVar, Unpack, cast

from payments import _params as given
from payments._client import path_of, perform
from payments._objects import Fields, ListObject, PaymentsObject

Kind = TypeVar("Kind", bound=PaymentsObject)


def _one(kind: type[Kind], method: str, path: str, params: Mapping[str, Any] | None = None) -> Kind:
    """The object that answers. A deleted customer is told without a type."""
    found = perform(method, path, params or {})
    if isinstance(found, kind):
        return found
    typed = kind({**found.to_dict(), "object": kind.OBJECT})
    typed.last_response = found.last_response
    return typed


def _page(kind: type[Kind], path: str, params: Mapping[str, Any]) -> ListObject[Kind]:
    del kind  # what is on the page says what it is
    return cast("ListObject[Kind]", _one(ListObject, "GET", path, params))


class Customer(PaymentsObject):
    """Somebody who pays."""

    OBJECT = "customer"
    id: str
    email: str | None
    name: str | None
    created: int
    metadata: Fields

    @classmethod
    def create(cls, **params: Unpack[given.CustomerParams]) -> Customer:
        """Somebody new."""
        return _one(cls, "POST", path_of("customers"), params)

    @classmethod
    def retrieve(cls, customer: str, **params: Unpack[given.Options]) -> Customer:
        """One customer."""
        return _one(cls, "GET", path_of("customers", customer), params)

    @classmethod
    def update(cls, customer: str, **params: Unpack[given.CustomerParams]) -> Customer:
        """What is given is changed; None unsets a field or a key of the metadata."""
        return _one(cls, "POST", path_of("customers", customer), params)

    modify = update

    @classmethod
    def delete(cls, customer: str, **params: Unpack[given.Options]) -> Customer:
        """Erases who it is, for good. What is left says `deleted`."""
        return _one(cls, "DELETE", path_of("customers", customer), params)

    @classmethod
    def list_payment_methods(
        cls, customer: str, **params: Unpack[given.ListParams]
    ) -> ListObject[PaymentMethod]:
        """Their cards."""
        return _page(PaymentMethod, path_of("customers", customer, "payment_methods"), params)

    @classmethod
    def list(cls, **params: Unpack[given.CustomerListParams]) -> ListObject[Customer]:
        """Customers, newest first."""
        return _page(cls, path_of("customers"), params)


class PaymentMethod(PaymentsObject):
    """A card that may be used again."""

    OBJECT = "payment_method"
    id: str
    type: str
    customer: str | None
    created: int
    metadata: Fields

    @classmethod
    def create(cls, **params: Unpack[given.MethodParams]) -> PaymentMethod:
        """A card."""
        return _one(cls, "POST", path_of("payment_methods"), params)

    @classmethod
    def retrieve(cls, payment_method: str, **params: Unpack[given.Options]) -> PaymentMethod:
        """One payment method."""
        return _one(cls, "GET", path_of("payment_methods", payment_method), params)

    @classmethod
    def update(cls, payment_method: str, **params: Unpack[given.MethodChange]) -> PaymentMethod:
        """What is given is changed."""
        return _one(cls, "POST", path_of("payment_methods", payment_method), params)

    modify = update

    @classmethod
    def attach(cls, payment_method: str, **params: Unpack[given.AttachParams]) -> PaymentMethod:
        """Gives it to a customer."""
        return _one(cls, "POST", path_of("payment_methods", payment_method, "attach"), params)

    @classmethod
    def detach(cls, payment_method: str, **params: Unpack[given.Options]) -> PaymentMethod:
        """Takes it away for good: its number is erased."""
        return _one(cls, "POST", path_of("payment_methods", payment_method, "detach"), params)

    @classmethod
    def list(cls, **params: Unpack[given.MethodListParams]) -> ListObject[PaymentMethod]:
        """Payment methods, newest first."""
        return _page(cls, path_of("payment_methods"), params)


class PaymentIntent(PaymentsObject):
    """What is to be paid, and how far that is."""

    OBJECT = "payment_intent"
    id: str
    amount: int
    amount_capturable: int
    amount_received: int
    client_secret: str
    created: int
    currency: str
    metadata: Fields
    status: str

    @classmethod
    def create(cls, **params: Unpack[given.IntentParams]) -> PaymentIntent:
        """Says what is to be paid; with `confirm`, makes the first attempt. Raises CardError."""
        return _one(cls, "POST", path_of("payment_intents"), params)

    @classmethod
    def retrieve(cls, intent: str, **params: Unpack[given.RetrieveIntentParams]) -> PaymentIntent:
        """One intent."""
        return _one(cls, "GET", path_of("payment_intents", intent), params)

    @classmethod
    def update(cls, intent: str, **params: Unpack[given.IntentChange]) -> PaymentIntent:
        """What is given is changed, before an attempt."""
        return _one(cls, "POST", path_of("payment_intents", intent), params)

    modify = update

    @classmethod
    def confirm(cls, intent: str, **params: Unpack[given.ConfirmParams]) -> PaymentIntent:
        """Makes an attempt. Raises CardError where it is declined; the next may succeed."""
        return _one(cls, "POST", path_of("payment_intents", intent, "confirm"), params)

    @classmethod
    def capture(cls, intent: str, **params: Unpack[given.CaptureParams]) -> PaymentIntent:
        """Takes what is held, or a part of it."""
        return _one(cls, "POST", path_of("payment_intents", intent, "capture"), params)

    @classmethod
    def cancel(cls, intent: str, **params: Unpack[given.CancelParams]) -> PaymentIntent:
        """Gives it up; what was held is released."""
        return _one(cls, "POST", path_of("payment_intents", intent, "cancel"), params)

    @classmethod
    def list(cls, **params: Unpack[given.IntentListParams]) -> ListObject[PaymentIntent]:
        """Intents, newest first."""
        return _page(cls, path_of("payment_intents"), params)


class Charge(PaymentsObject):
    """A payment."""

    OBJECT = "charge"
    id: str
    amount: int
    amount_captured: int
    amount_refunded: int
    captured: bool
    created: int
    currency: str
    refunded: bool
    status: str

    @classmethod
    def retrieve(cls, charge: str, **params: Unpack[given.Options]) -> Charge:
        """One charge."""
        return _one(cls, "GET", path_of("charges", charge), params)

    @classmethod
    def list(cls, **params: Unpack[given.ChargeListParams]) -> ListObject[Charge]:
        """Charges, newest first."""
        return _page(cls, path_of("charges"), params)


class Refund(PaymentsObject):
    """Money given back."""

    OBJECT = "refund"
    id: str
    amount: int
    created: int
    currency: str
    status: str

    @classmethod
    def create(cls, **params: Unpack[given.RefundParams]) -> Refund:
        """Gives money back: all that is left, or an amount."""
        return _one(cls, "POST", path_of("refunds"), params)

    @classmethod
    def retrieve(cls, refund: str, **params: Unpack[given.Options]) -> Refund:
        """One refund."""
        return _one(cls, "GET", path_of("refunds", refund), params)

    @classmethod
    def list(cls, **params: Unpack[given.RefundListParams]) -> ListObject[Refund]:
        """Refunds, newest first."""
        return _page(cls, path_of("refunds"), params)


class Balance(PaymentsObject):
    """What is held, captured and refunded, by currency."""

    OBJECT = "balance"
    available: builtins.list[Fields]
    held: builtins.list[Fields]
    captured: builtins.list[Fields]
    refunded: builtins.list[Fields]

    @classmethod
    def retrieve(cls, **params: Unpack[given.BalanceParams]) -> Balance:
        """All of the merchant's, or one customer's; now, or as of a moment."""
        return _one(cls, "GET", path_of("balance"), params)


class Event(PaymentsObject):
    """Something that happened; `data.object` is what it happened to, as it was then."""

    OBJECT = "event"
    id: str
    type: str
    created: int

    @classmethod
    def retrieve(cls, event: str, **params: Unpack[given.Options]) -> Event:
        """One event."""
        return _one(cls, "GET", path_of("events", event), params)

    @classmethod
    def list(cls, **params: Unpack[given.EventListParams]) -> ListObject[Event]:
        """Events, newest first."""
        return _page(cls, path_of("events"), params)
