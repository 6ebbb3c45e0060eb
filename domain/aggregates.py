"""Every kind of aggregate that the log has events of. Whoever reads it has to know them all."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from eventsourcing.utils import resolve_topic

from domain.customer import Customer
from domain.ids import Prefix
from domain.invoice import Invoice
from domain.payment import Payment
from domain.payment_intent import PaymentIntent
from domain.payment_method import PaymentMethod
from domain.subscription import Subscription
from domain.token import Token

PREFIXES: Final[Mapping[Any, Prefix]] = {
    Payment: Prefix.PAYMENT,
    PaymentIntent: Prefix.INTENT,
    PaymentMethod: Prefix.PAYMENT_METHOD,
    Token: Prefix.TOKEN,
    Customer: Prefix.CUSTOMER,
    Subscription: Prefix.SUBSCRIPTION,
    Invoice: Prefix.INVOICE,
}
_BY_TOPIC: Final = {kind.TOPIC: prefix for kind, prefix in PREFIXES.items()}


@cache
def event_class(topic: str) -> Any:
    """The class of the events with this topic. Raises TopicError."""
    return resolve_topic(topic)


def prefix_of(topic: str) -> Prefix | None:
    """What the ids of those begin with that have events of this topic; None for a kind that is none."""
    return _BY_TOPIC.get(topic.partition(".")[0])
