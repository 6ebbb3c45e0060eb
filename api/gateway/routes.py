"""The gateway family's routes."""

from typing import Any, Final
from uuid import UUID

from api.bodies import FORBIDDEN
from api.errors import invalid
from api.gateway import outputs
from api.gateway.inputs import (
    AuthorizationInput,
    CaptureInput,
    MomentQuery,
    ReceiptsQuery,
    VoidInput,
    payment_uuid,
)
from api.http import Answer, Call, Route, json_answer
from api.instruments import instrument
from api.lists import asked_page, told_page
from api.moments import moment
from api.proofs import in_base64, inclusion_of
from api.schemas import OrderOut, ReceiptAnswer, ReceiptList, ReceiptOut
from domain.cards import Card
from domain.commands import AuthorizePayment, CapturePayment, VoidPayment
from domain.errors import OrderNotFound, PaymentNotFound
from domain.ledger import Reply
from domain.money import Money
from domain.payment import Payment
from infrastructure.api_keys import Scope
from infrastructure.audit.log import history
from infrastructure.shards import shard_of
from projections import receipts
from projections.pages import Page
from projections.receipts import Receipts

FAMILY: Final = "gateway"
MAX_PAYMENTS_SHOWN: Final = 100

RECEIPTS: Final = Receipts()


# --- commands: each is asked of the ledger once, under its idempotency key ---------------------


def authorize(call: Call, body: AuthorizationInput) -> Reply:
    """Reserves the money of an order."""
    card, method_id, print_of = _paid_with(call, body)
    command = AuthorizePayment(
        **call.command_fields(FAMILY),
        order_id=body.order_id,
        customer_id=body.customer_id,
        money=Money(body.amount, body.currency),
        card=card,
        method_id=method_id,
        fingerprint=print_of,
        metadata=body.metadata,
    )
    return call.services.ledger.authorize(command)


def _paid_with(call: Call, body: AuthorizationInput) -> tuple[Card, str | None, str | None]:
    """The card, whichever way it was given, and the payment method that it is of, with its fingerprint. Raises ApiError,
    PaymentMethodNotFound, PaymentMethodStateConflict."""
    if body.card is not None and body.payment_method is not None:
        raise invalid("invalid_param", "Give card or payment_method, not both.", "payment_method")
    if body.card is not None:
        return body.card.card(), None, None
    if body.payment_method is None:
        raise invalid("missing_param", "card is required.", "card")
    method = instrument(call, body.payment_method, body.cvc, whose=body.customer_id)
    if not isinstance(method.means, Card):
        raise invalid(
            "payment_method_type_unsupported", "Only a card can be authorized.", "payment_method"
        )
    return method.means, method.method_id, method.fingerprint


def capture(call: Call, body: CaptureInput) -> Reply:
    """Takes what is held."""
    command = CapturePayment(
        **call.command_fields(FAMILY), payment_id=body.uuid(), amount_minor=body.amount
    )
    return call.services.ledger.capture(command)


def void(call: Call, body: VoidInput) -> Reply:
    """Releases what is held."""
    command = VoidPayment(**call.command_fields(FAMILY), payment_id=body.uuid())
    return call.services.ledger.void(command)


# --- queries -----------------------------------------------------------------------------------


def get_receipt(call: Call, query: MomentQuery, *, payment_id: str) -> Answer:
    """One receipt, as it is or as it stood."""
    uuid = payment_uuid(payment_id)
    with call.services.pool.connection() as connection:
        document = RECEIPTS.by_id(connection, shard_of(uuid), uuid, call.tenant)
    if document is None:
        raise PaymentNotFound("There is no such payment.")
    if query.as_of is not None or query.version is not None:
        document = _receipt_at(call, uuid, query)
    body = outputs.receipt(document)
    if query.proof == "true":
        body["proof"] = _proof_of(call, uuid, body["version"])
    return json_answer(200, body)


def _proof_of(call: Call, payment_id: UUID, version: int) -> dict[str, Any] | None:
    """That the log has the payment's event of this version; None until a checkpoint covers it."""
    with call.services.pool.connection() as connection:
        event = history(connection, payment_id)[version - 1]
        if event.position is None or event.leaf is None:
            return None
        proof = inclusion_of(connection, event.position)
    return None if proof is None else {**proof, "leaf": in_base64(event.leaf)}


def _receipt_at(call: Call, payment_id: UUID, query: MomentQuery) -> dict[str, Any]:
    """The receipt by a replay that is cut at the moment asked for."""
    history: list[Payment.Event] = call.services.ledger.payment(payment_id, call.tenant).history
    if query.version is not None:
        if query.version > len(history):
            raise PaymentNotFound("The payment has no such version.", param="version")
        return receipts.fold(history[: query.version])
    assert query.as_of is not None
    at = moment(query.as_of)
    first_later = next((i for i, e in enumerate(history) if e.timestamp > at), len(history))
    if first_later == 0:
        raise PaymentNotFound("The payment was not there yet.", param="as_of")
    return receipts.fold(history[:first_later])


def list_receipts(call: Call, query: ReceiptsQuery) -> Answer:
    """Receipts by order, by customer, by status, by time."""
    wanted = {
        "order_id": query.order_id,
        "customer_id": query.customer_id,
        "status": None if query.status is None else query.status.value,
    }
    page = asked_page(query, wanted, lambda text, param: _known_payment_id(call, text, param))
    with call.services.pool.connection() as connection:
        documents, has_more = RECEIPTS.page(connection, call.tenant, page)
    body = told_page(
        [outputs.receipt(document) for document in documents],
        id_field="payment_id",
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, body)


def get_order(call: Call, _query: None, *, order_id: str) -> Answer:
    """An order's payments, and whether it may be shipped."""
    documents: list[dict[str, Any]] = []
    if not FORBIDDEN.search(order_id):
        page = Page(limit=MAX_PAYMENTS_SHOWN, filters={"order_id": order_id})
        with call.services.pool.connection() as connection:
            documents, _ = RECEIPTS.page(connection, call.tenant, page)
    if not documents:
        raise OrderNotFound("No payment was asked for under this order id.")
    return json_answer(200, outputs.order(order_id, documents))


def _known_payment_id(call: Call, text: str, param: str) -> UUID:
    return _known_payment(call, payment_uuid(text, param=param), param)


def _known_payment(call: Call, uuid: UUID, param: str) -> UUID:
    """The same, where there is such a payment. Raises PaymentNotFound."""
    with call.services.pool.connection() as connection:
        if RECEIPTS.by_id(connection, shard_of(uuid), uuid, call.tenant) is None:
            raise PaymentNotFound("There is no such payment.", param=param)
    return uuid


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/authorizations",
        handler=authorize,
        pending=outputs.pending,
        body=AuthorizationInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Reserve the money of an order",
        family=FAMILY,
        answers={201: ReceiptOut, 202: ReceiptOut},
        needs_idempotency_key=True,
    ),
    Route(
        method="POST",
        path="/v1/captures",
        handler=capture,
        pending=outputs.pending,
        body=CaptureInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Take the money that is held",
        family=FAMILY,
        answers={201: ReceiptOut, 202: ReceiptOut},
        needs_idempotency_key=True,
    ),
    Route(
        method="POST",
        path="/v1/voids",
        handler=void,
        pending=outputs.pending,
        body=VoidInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Release the money that is held",
        family=FAMILY,
        answers={201: ReceiptOut, 202: ReceiptOut},
        needs_idempotency_key=True,
    ),
    Route(
        method="GET",
        path="/v1/receipts",
        handler=list_receipts,
        query=ReceiptsQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List receipts, newest first: by order, by customer",
        family=FAMILY,
        answers={200: ReceiptList},
    ),
    Route(
        method="GET",
        path="/v1/receipts/<payment_id>",
        handler=get_receipt,
        query=MomentQuery,
        scope=Scope.PAYMENTS_READ,
        summary="A receipt, as it is or as it stood, and proven",
        family=FAMILY,
        answers={200: ReceiptAnswer},
    ),
    Route(
        method="GET",
        path="/v1/orders/<any_text:order_id>",
        handler=get_order,
        scope=Scope.PAYMENTS_READ,
        summary="An order: its payments, and may it be shipped?",
        family=FAMILY,
        answers={200: OrderOut},
    ),
)
