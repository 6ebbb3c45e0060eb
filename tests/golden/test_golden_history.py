"""A whole history, and what was read from it when it was stored."""

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from eventsourcing.persistence import StoredEvent

from domain.payment import Payment, Status
from infrastructure.event_store import FlatJSON, FlatMapper
from projections import receipts, refunds

HISTORIES = sorted((Path(__file__).parent / "histories").glob("*.events.json"))


def loaded(path: Path) -> list[Payment.Event]:
    document = json.loads(path.read_text("utf-8"))
    mapper = FlatMapper(FlatJSON())
    return [
        mapper.to_domain_event(
            StoredEvent(
                originator_id=UUID(document["originator_id"]),
                originator_version=each["originator_version"],
                topic=each["topic"],
                state=each["state"].encode(),
            )
        )
        for each in document["events"]
    ]


def beside(path: Path, what: str) -> Any:
    return json.loads(path.with_name(path.name.replace(".events.", f".{what}.")).read_text("utf-8"))


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_stored_history_folds_to_the_stored_receipt(path: Path) -> None:
    assert receipts.fold(loaded(path)) == beside(path, "receipt")


@pytest.mark.parametrize("path", HISTORIES, ids=lambda path: path.stem)
def test_a_stored_history_folds_to_the_stored_refunds(path: Path) -> None:
    assert refunds.fold(loaded(path)) == beside(path, "refunds")


def test_a_stored_history_replays_to_a_payment() -> None:
    payment: Any = None

    for event in loaded(HISTORIES[0]):
        payment = event.mutate(payment)

    assert isinstance(payment, Payment)
    assert payment.status == Status.REFUNDED
    assert (payment.captured_minor, payment.refunded_minor) == (4000, 4000)
    assert payment.version == 15
    assert payment.running is None
