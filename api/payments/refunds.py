"""Refunds: money given back, of whatever family's payment."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

from api.errors import misunderstood
from api.http import (
    RETRY_AFTER_PENDING_SECONDS,
    Answer,
    Call,
    Route,
    error_answer,
    json_answer,
)
from api.lists import asked_page, told_page
from api.payments import objects
from api.payments.commands import recorded, set_in
from api.payments.expand import check, expanded
from api.payments.inputs import (
    ExpandQuery,
    RefundChange,
    RefundInput,
    RefundsQuery,
    missing,
)
from api.payments.reading import INTENTS, REFUNDS, Reader
from api.schemas import RefundList, RefundOut
from domain.commands import RefundPayment
from domain.errors import PaymentNotFound, PaymentStateConflict
from domain.ids import MalformedId, Prefix, decode, encode
from domain.ledger import Reply
from domain.payment import BANK_PROTOCOL_ERROR, REMARKS, Payment
from domain.records import BankCall, StoredAnswer
from infrastructure.api_keys import Scope
from projections import receipts as receipts_model
from projections import refunds as refunds_model

FAMILY: Final = "refunds"
KIND: Final = "refund"

Document = dict[str, Any]


# --- commands -----------------------------------------------------------------------------------


def refund(call: Call, body: RefundInput) -> Reply:
    """Gives money back."""
    check(KIND, call.expand)
    param, payment_id = body.payment()
    if param == "payment_intent":
        payment_id = _payment_of_intent(call, payment_id)
    command = RefundPayment(
        **call.command_fields(FAMILY),
        payment_id=payment_id,
        amount_minor=body.amount,
        reason=body.reason,
        metadata=body.metadata,
        by_charge=body.by_charge,
    )
    try:
        return call.services.ledger.refund(command)
    except PaymentNotFound as error:
        raise PaymentNotFound(error.message, param=param) from error


def update_refund(call: Call, body: RefundChange, *, refund_id: str) -> Reply:
    """What is given is changed of its metadata, and nothing else."""
    check(KIND, call.expand)
    document = known_refund(call, refund_id, None)
    payment_id = decode(Prefix.PAYMENT, document["payment_id"])
    payment = call.services.ledger.payment(payment_id, call.tenant)
    metadata = set_in(payment.refunds_metadata[document["id"]], body.metadata)
    payment.update_refund(document["id"], metadata, at=call.services.clock.now())
    found = {each["id"]: each for each in refunds_model.fold(payment.history)}
    reader = Reader(call.services, call.tenant)
    told = expanded(objects.refund(found[document["id"]]), call.expand, reader)
    return recorded(call, (payment,), json_answer(200, told).stored(), [])


def settled(
    history: Sequence[Payment.Event], call: BankCall, reader: Callable[[], Reader]
) -> StoredAnswer:
    """The final answer: the refund, also where the bank refused it for good."""
    event = next(each for each in reversed(history) if not isinstance(each, REMARKS))
    if isinstance(event, Payment.RefundDeclined) and event.code == BANK_PROTOCOL_ERROR:
        error = misunderstood(encode(Prefix.PAYMENT, event.originator_id))
        answer = error_answer(error, call.audience.dialect, call.cause.request_id)
    else:
        answer = _told(history, call.audience.expand, reader, status=201)
    return answer.stored()


def pending(call: Call, history: Sequence[Payment.Event]) -> Answer:
    """Not known in time: the refund is pending."""
    answer = _told(history, call.expand, lambda: Reader(call.services, call.tenant), status=202)
    headers = {**answer.headers, "Retry-After": str(RETRY_AFTER_PENDING_SECONDS)}
    return replace(answer, headers=headers)


def _told(
    history: Sequence[Payment.Event],
    expand: Sequence[str],
    reader: Callable[[], Reader],
    *,
    status: int,
) -> Answer:
    """The last refund, with where it is."""
    body = objects.refund(refunds_model.fold(history)[-1])
    if expand:
        receipt = receipts_model.fold(history)
        body = expanded(body, expand, reader(), receipts={receipt["payment_id"]: receipt})
    return json_answer(status, body, {"Location": f"/v1/refunds/{body['id']}"})


# --- queries ------------------------------------------------------------------------------------


def get_refund(call: Call, query: ExpandQuery, *, refund_id: str) -> Answer:
    """One refund."""
    body = objects.refund(known_refund(call, refund_id, None))
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def list_refunds(call: Call, query: RefundsQuery) -> Answer:
    """Refunds by payment, by status, by time."""
    wanted: dict[str, Any] = {"status": query.status}
    named = query.named()
    if named is not None:
        param, payment_id = named
        if param == "payment_intent":
            payment_id = _payment_of_intent(call, payment_id)
        wanted["payment_id"] = _known_payment(call, payment_id, param)

    def cursor(text: str, param: str) -> UUID:
        return refunds_model.uuid_of(known_refund(call, text, param)["id"])

    page = asked_page(query, wanted, cursor)
    with call.services.pool.connection() as connection:
        documents, has_more = REFUNDS.page(connection, call.tenant, page)
    body = told_page(
        [objects.refund(document) for document in documents],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def _payment_of_intent(call: Call, intent_id: UUID) -> UUID:
    """The payment of an intent's last attempt. Raises IntentNotFound, PaymentStateConflict."""
    public_id = encode(Prefix.INTENT, intent_id)
    reader = Reader(call.services, call.tenant)
    found = reader.record(INTENTS, Prefix.INTENT, public_id, "payment_intent")
    if not found["attempts"]:
        raise PaymentStateConflict("Nothing was paid yet.", code="payment_not_captured")
    return decode(Prefix.PAYMENT, found["attempts"][-1])


def _known_payment(call: Call, uuid: UUID, param: str) -> UUID:
    """The same, where there is such a payment. Raises PaymentNotFound."""
    if not Reader(call.services, call.tenant).receipts([uuid]):
        raise PaymentNotFound("There is no such payment.", param=param)
    return uuid


def known_refund(call: Call, text: str, param: str | None) -> Document:
    """The refund that a public id names, in either spelling. Raises RefundNotFound."""
    try:
        uuid = refunds_model.uuid_of(text)
    except MalformedId as error:
        raise missing(Prefix.REFUND, param) from error
    with call.services.pool.connection() as connection:
        document = REFUNDS.by_id(connection, uuid, call.tenant)
    if document is None:
        raise missing(Prefix.REFUND, param)
    return document


ONE: Final = "/v1/refunds/<refund_id>"
ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/refunds",
        handler=refund,
        pending=pending,
        body=RefundInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Give money back",
        family="payments",
        answers={201: RefundOut, 202: RefundOut},
    ),
    Route(
        method="POST",
        path=ONE,
        handler=update_refund,
        body=RefundChange,
        scope=Scope.PAYMENTS_WRITE,
        summary="Change a refund's metadata",
        family="payments",
        answers={200: RefundOut},
    ),
    Route(
        method="GET",
        path="/v1/refunds",
        handler=list_refunds,
        query=RefundsQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List refunds, newest first",
        family="payments",
        answers={200: RefundList},
    ),
    Route(
        method="GET",
        path=ONE,
        handler=get_refund,
        query=ExpandQuery,
        scope=Scope.PAYMENTS_READ,
        summary="A refund",
        family="payments",
        answers={200: RefundOut},
    ),
)
