"""Disputes: looked at, answered and given up. Who is right is the bank's to say."""

from typing import Any, Final
from uuid import UUID

from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
from api.lists import asked_page, told_page
from api.payments import dispute_objects
from api.payments.commands import done, set_in
from api.payments.expand import check, expanded
from api.payments.inputs import (
    LONGEST_EVIDENCE,
    DisputeChange,
    DisputesQuery,
    ExpandQuery,
    NothingInput,
    missing,
    uuid_of,
)
from api.payments.reading import DISPUTES, INTENTS, Reader
from api.payments.schemas import DisputeList, DisputeOut
from domain.disputes import Disputes
from domain.ids import MalformedId, Prefix, decode, encode
from domain.ledger import Settled
from domain.payment import Payment
from domain.records import Record
from infrastructure.api_keys import Scope
from projections import disputes as disputes_model

FAMILY: Final = "payments"
KIND: Final = "dispute"


def update(call: Call, body: DisputeChange, *, dispute_id: str) -> Settled:
    """Something is said on it; with `submit`, to the bank, and once."""
    check(KIND, call.expand)
    payment, record = _asked(call, dispute_id)
    reader = Reader(call.services, call.tenant)
    before = reader.personal(decode(Prefix.DISPUTE, dispute_id))
    given = {**before, **body.evidence}
    now = {name: text for name, text in given.items() if text is not None}
    if body.evidence:
        _refuse_too_long(now)
    records = Disputes(call.services.ledger).evidence(
        payment,
        dispute_id,
        before=before,
        now=now,
        metadata=set_in(record["metadata"], body.metadata),
        is_submitted=body.submit,
    )
    return _told(call, payment, dispute_id, now, records)


def close(call: Call, _body: NothingInput, *, dispute_id: str) -> Settled:
    """It is given up, and lost."""
    check(KIND, call.expand)
    payment, _ = _asked(call, dispute_id)
    records = Disputes(call.services.ledger).acceptance(payment, dispute_id)
    said = Reader(call.services, call.tenant).personal(decode(Prefix.DISPUTE, dispute_id))
    return _told(call, payment, dispute_id, said, records)


def _asked(call: Call, dispute_id: str) -> tuple[Payment, dict[str, Any]]:
    """The payment that is disputed, to be changed, and the dispute as it is. Raises DisputeNotFound."""
    record = Reader(call.services, call.tenant).record(DISPUTES, Prefix.DISPUTE, dispute_id)
    payment_id = decode(Prefix.PAYMENT, record["payment_id"])
    return call.services.ledger.payment(payment_id, call.tenant), record


def _refuse_too_long(evidence: dict[str, Any]) -> None:
    """Raises ApiError, also where it became so answer by answer."""
    if sum(map(len, evidence.values())) > LONGEST_EVIDENCE:
        message = (
            f"evidence may have at most {LONGEST_EVIDENCE} characters, with what was said before."
        )
        raise invalid("invalid_param", message, "evidence")


def _told(
    call: Call, payment: Payment, dispute_id: str, said: dict[str, Any], records: list[Record]
) -> Settled:
    found = {each["id"]: each for each in disputes_model.fold(payment.history)}
    body = dispute_objects.dispute(found[dispute_id], said, call.services.clock.now())
    return done(call, payment, body, *records)


def get(call: Call, query: ExpandQuery, *, dispute_id: str) -> Answer:
    """One dispute."""
    reader = Reader(call.services, call.tenant)
    return json_answer(200, expanded(reader.dispute(dispute_id), query.expand, reader))


def list_disputes(call: Call, query: DisputesQuery) -> Answer:
    """Disputes, newest first."""
    reader = Reader(call.services, call.tenant)

    def cursor(text: str, param: str) -> UUID:
        reader.record(DISPUTES, Prefix.DISPUTE, text, param)
        return uuid_of(Prefix.DISPUTE, text, param)

    page = asked_page(query, {"payment_id": _payment_id(reader, query)}, cursor)
    records, has_more = reader.page(DISPUTES, page)
    body = told_page(
        reader.disputes(records),
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


def _payment_id(reader: Reader, query: DisputesQuery) -> str | None:
    """Of the payment whose disputes are asked for. Raises NotFound."""
    if query.payment_intent is not None:
        intent = reader.record(INTENTS, Prefix.INTENT, query.payment_intent, "payment_intent")
        return intent["attempts"][-1] if intent["attempts"] else ""
    if query.charge is None:
        return None
    try:
        payment_id = decode(Prefix.CHARGE, query.charge)
    except MalformedId as error:
        raise missing(Prefix.CHARGE, "charge") from error
    if not reader.receipts([payment_id]):
        raise missing(Prefix.CHARGE, "charge")
    return encode(Prefix.PAYMENT, payment_id)


ONE: Final = "/v1/disputes/<dispute_id>"
ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/disputes",
        handler=list_disputes,
        query=DisputesQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List disputes, newest first",
        family=FAMILY,
        answers={200: DisputeList},
    ),
    Route(
        method="GET",
        path=ONE,
        handler=get,
        name="get_dispute",
        query=ExpandQuery,
        scope=Scope.PAYMENTS_READ,
        summary="A dispute",
        family=FAMILY,
        answers={200: DisputeOut},
    ),
    Route(
        method="POST",
        path=ONE,
        handler=update,
        name="update_dispute",
        body=DisputeChange,
        scope=Scope.PAYMENTS_WRITE,
        summary="Say something on a dispute, and submit it to the bank",
        family=FAMILY,
        answers={200: DisputeOut},
    ),
    Route(
        method="POST",
        path=f"{ONE}/close",
        handler=close,
        name="close_dispute",
        body=NothingInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Give a dispute up",
        family=FAMILY,
        answers={200: DisputeOut},
    ),
)
