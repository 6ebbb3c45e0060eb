"""Payment methods as they are: a card's face or an account's, and whose it is."""

from collections.abc import Sequence
from typing import Final, LiteralString

from domain.ids import Prefix, encode
from domain.payment import rfc3339
from domain.payment_method import PaymentMethod
from projections.documents import Document, Documents

NAME: Final[LiteralString] = "payment_methods"


class Methods(Documents):
    """The table of payment methods."""

    name: LiteralString = NAME
    version = 1
    aggregate: LiteralString = "payment_method"
    migration: LiteralString = "0005_intents.sql"

    def fold(self, history: Sequence[PaymentMethod.Event]) -> Document:
        """`id`, `type`, `mode`, `card` (`brand`, `last4`, `exp_month`, `exp_year`, `fingerprint`) or
        `account` (`last4`, `sort_code`, `fingerprint`),
        `customer_id`, `metadata`, `is_detached`, `created_at`."""
        document: Document = {}
        for event in history:
            _apply(document, event)
        return document


def _apply(document: Document, event: PaymentMethod.Event) -> None:
    match event:
        case PaymentMethod.Created():
            document.update(
                id=encode(Prefix.PAYMENT_METHOD, event.originator_id),
                type=event.type,
                mode=event.mode,
                customer_id=None,
                metadata=dict(event.metadata),
                is_detached=False,
                created_at=rfc3339(event.timestamp),
                **_face(event),
            )
        case PaymentMethod.Updated():
            document["metadata"] = dict(event.metadata)
            if "card" in document:
                document["card"] |= {
                    "exp_month": event.card_exp_month,
                    "exp_year": event.card_exp_year,
                }
        case PaymentMethod.Attached():
            document["customer_id"] = event.customer_id
        case PaymentMethod.Detached():
            document |= {"customer_id": None, "is_detached": True}
        case _:
            raise AssertionError(f"an event that payment methods do not know: {event}")


def _face(event: PaymentMethod.Created) -> Document:
    if event.account_last4 is not None:
        account = {"last4": event.account_last4, "sort_code": event.account_sort_code}
        return {"account": account | {"fingerprint": event.fingerprint}}
    return {
        "card": {
            "brand": event.card_brand,
            "last4": event.card_last4,
            "exp_month": event.card_exp_month,
            "exp_year": event.card_exp_year,
            "fingerprint": event.fingerprint,
        }
    }
