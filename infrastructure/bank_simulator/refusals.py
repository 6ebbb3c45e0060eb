"""The bank's ways of saying no: one table of codes, statuses and sentences."""

from collections.abc import Mapping
from types import MappingProxyType

REFUSALS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "insufficient_funds": (402, "The card has insufficient funds"),
        "card_declined": (402, "The card was declined"),
        "processing_error": (402, "The card could not be processed"),
        "invalid_card": (400, "The card number is not valid"),
        "invalid_cvv": (400, "The CVV is not valid"),
        "card_expired": (400, "The card has expired"),
        "lost_card": (402, "The card was reported lost"),
        "stolen_card": (402, "The card was reported stolen"),
        "invalid_account": (400, "The account is not valid"),
        "invalid_return_url": (400, "The return_url is not an address"),
        "invalid_amount": (400, "The amount must be a positive number of cents"),
        "invalid_currency": (400, "The currency must be three letters"),
        "amount_mismatch": (400, "The amount does not match"),
        "authorization_not_found": (400, "There is no such authorization"),
        "authorization_expired": (400, "The authorization has expired"),
        "authorization_already_used": (400, "The authorization was already captured or voided"),
        "capture_not_found": (400, "There is no such capture"),
        "already_refunded": (400, "The capture was already refunded"),
        "refund_exceeds_capture": (400, "The refunds would exceed the capture"),
        "invalid_reason": (400, "There is no such reason for a dispute"),
        "dispute_not_found": (400, "There is no such dispute"),
        "dispute_decided": (400, "The dispute was already decided"),
        "nothing_to_dispute": (400, "Nothing of the capture is left to be disputed"),
        "not_found": (404, "Not found"),
        "internal_error": (500, "Internal error"),
    }
)


class Refused(Exception):
    """The bank said no; `code` is a key of `REFUSALS`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code

    @property
    def status(self) -> int:
        return REFUSALS[self.code][0]

    @property
    def message(self) -> str:
        return REFUSALS[self.code][1]


class Unreadable(Exception):
    """The body does not have the published types: a protocol error, answered in plain text."""
