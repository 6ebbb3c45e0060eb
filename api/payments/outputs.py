"""What the payments family answers."""

from collections.abc import Sequence
from typing import Any

from domain.commands import Mode


def balance(rows: Sequence[dict[str, Any]], mode: Mode) -> dict[str, Any]:
    """The balance, as Stripe's clients know it, and beside it what they have no words for: what is
    held, what was captured and refunded in all, and what is disputed."""
    return {
        "object": "balance",
        "available": [
            _amount(row, row["captured"] + row["refunded"] + row["disputed"]) for row in rows
        ],
        "pending": [_amount(row, 0) for row in rows],
        "held": [_plain(row, row["held"]) for row in rows],
        "captured": [_plain(row, row["captured"]) for row in rows],
        "refunded": [_plain(row, -row["refunded"]) for row in rows],
        "disputed": [_plain(row, -row["disputed"]) for row in rows],
        "livemode": mode is Mode.LIVE,
    }


def _amount(row: dict[str, Any], minor: int) -> dict[str, Any]:
    return {**_plain(row, minor), "source_types": {"card": minor}}


def _plain(row: dict[str, Any], minor: int) -> dict[str, Any]:
    return {"amount": minor, "currency": row["currency"].lower()}
