"""Disputes: a card's holder tells the bank that a payment was not right, and the bank takes the money
back until it has decided. What happened is recorded with the payment that it is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final


class DisputeStatus(StrEnum):
    """How a dispute stands. The money is back with the cardholder in all of them but `won`."""

    NEEDS_RESPONSE = "needs_response"
    UNDER_REVIEW = "under_review"
    WON = "won"
    LOST = "lost"


DECIDED: Final = frozenset({DisputeStatus.WON, DisputeStatus.LOST})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """One dispute of a payment."""

    bank_id: str
    amount_minor: int
    status: DisputeStatus
    metadata: Mapping[str, str | int | float | bool] = field(default_factory=dict)

    @property
    def keeps_the_money(self) -> bool:
        """Whether the money is not the merchant's, now at least."""
        return self.status is not DisputeStatus.WON


@dataclass(frozen=True, slots=True, kw_only=True)
class DisputeNotice:
    """What the bank tells of a dispute: all of it, as it then stood. `position`: in the order of all
    notices, without gaps. `capture_key`: our key, under which the capture was asked for."""

    position: int
    bank_dispute_id: str
    bank_capture_id: str
    capture_key: str
    amount_minor: int
    reason: str
    status: DisputeStatus
    evidence_due_by: datetime | None
