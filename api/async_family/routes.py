"""The asynchronous family's routes: no version prefix, JSON only, an idempotency key on every command."""

from typing import Any, Final
from uuid import UUID

from api.async_family import outputs
from api.async_family.errors import MEANINGS
from api.async_family.inputs import (
    AsyncConfirmInput,
    AsyncIntentInput,
    AsyncRefundInput,
    ConfirmQuery,
    intent_uuid,
)
from api.async_family.schemas import (
    AsyncIntentOut,
    AsyncRefundOut,
    ConfirmedOut,
    NewAsyncIntentOut,
    ResultOut,
    TooEarlyOut,
)
from api.bodies import JSON_TYPE
from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
from api.instruments import instrument
from api.unguessable import client_secret, receipt_url
from domain.commands import ConfirmIntent, Instrument, Mode, RefundPayment
from domain.errors import IntentNotFound, PaymentNotFound
from domain.ids import Prefix, decode
from domain.intents import PaymentIntents
from domain.ledger import Reply, Settled
from domain.money import Money
from domain.payment import CaptureMethod
from domain.payment_intent import PaymentIntent, Terms
from domain.records import claimed_by
from infrastructure.api_keys import Scope
from infrastructure.clock import between
from infrastructure.shards import shard_of
from infrastructure.worker import POLL_SECONDS
from projections.payment_intents import Intents
from projections.receipts import Receipts

FAMILY: Final = "async"
# The first parts of this family's paths.
MOUNTED_AT: Final = ("payment_intents", "payments", "refunds")
METHOD: Final = "payment_method_id"
LONGEST_DELAY: Final = 2.5  # times the shortest

INTENTS: Final = Intents()
RECEIPTS: Final = Receipts()

Document = dict[str, Any]


# --- commands -----------------------------------------------------------------------------------


def create(call: Call, body: AsyncIntentInput) -> Settled:
    """What a merchant wants to be paid."""
    services = call.services
    if body.payment_method_id is not None:
        instrument(call, body.payment_method_id, param=METHOD, whose=body.customer_id)
    intent = PaymentIntent.create(
        intent_id=services.ids.new(),
        tenant=call.tenant,
        family=FAMILY,
        terms=Terms(
            money=Money(body.amount, body.currency),
            capture_method=CaptureMethod(body.capture_method),
            payment_method_id=body.payment_method_id,
            customer_id=body.customer_id,
            metadata=body.metadata,
        ),
        at=services.clock.now(),
    )
    record = INTENTS.fold(intent.history)
    told = outputs.new_intent(record, client_secret(services, record["id"]))
    location = {"Location": f"/payment_intents/{record['id']}"}
    stored = json_answer(201, told, location).stored()
    claims = claimed_by(call.claim, call.cause, intent.id, stored)
    services.ledger.record((intent,), call.cause, claims)
    return Settled(answer=stored, history=())


def confirm(call: Call, body: AsyncConfirmInput, *, intent_id: str) -> Settled:
    """The attempt is recorded and answered; a worker makes it, after a while."""
    intents = PaymentIntents(call.services.ledger)
    intent = intents.unconfirmed(intent_uuid(intent_id), call.tenant)
    stored = outputs.confirmed(intent_id).stored()
    query: ConfirmQuery = call.query
    if query.force is not None and call.tenant.mode is not Mode.TEST:
        raise invalid("invalid_param", "force is for test mode only.", "force")
    command = ConfirmIntent(
        **call.command_fields(FAMILY) | {"claim": None},
        intent_id=intent.id,
        instrument=_paid_with(call, body, intent),
        starts_in_seconds=_delay_seconds(call),
        test_outcome=query.force,
        once_only=True,
    )
    intents.confirm(command, None, *claimed_by(call.claim, call.cause, intent.id, stored))
    return Settled(answer=stored, history=())


def _paid_with(call: Call, body: AsyncConfirmInput, intent: PaymentIntent) -> Instrument:
    """What is given to pay with, or was before. Raises ApiError, NotFound."""
    given = body.payment_method_id
    method_id = intent.terms.payment_method_id if given is None else given
    if method_id is None:
        raise invalid("missing_param", f"{METHOD} is required.", METHOD)
    return instrument(call, method_id, param=METHOD, whose=intent.terms.customer_id)


def _delay_seconds(call: Call) -> float:
    """When a worker may begin. It looks every so often, which is part of the wait."""
    shortest = call.services.settings.async_delay_ms / 1000
    return between(shortest, max(shortest, LONGEST_DELAY * shortest - POLL_SECONDS))


def refund(call: Call, body: AsyncRefundInput) -> Reply:
    """Money is given back."""
    command = RefundPayment(
        **call.command_fields(FAMILY),
        payment_id=body.uuid(),
        amount_minor=body.amount,
        reason=body.reason,
        by_charge=True,
    )
    return call.services.ledger.refund(command)


# --- queries ------------------------------------------------------------------------------------


def get_intent(call: Call, _query: None, *, intent_id: str) -> Answer:
    """One intent."""
    record, receipt = _found(call, intent_uuid(intent_id))
    secret = client_secret(call.services, intent_id)
    return json_answer(200, outputs.intent(record, secret, receipt))


def get_result(call: Call, _query: None, *, intent_id: str) -> Answer:
    """What came of an intent, once it is settled."""
    record, receipt = _found(call, intent_uuid(intent_id))
    status = outputs.status_of(record, receipt)
    if status in outputs.UNSETTLED:
        return outputs.too_early(status)
    if receipt is None:
        raise PaymentNotFound("The payment intent was canceled before anything was paid.")
    link = receipt_url(call.services, receipt["payment_id"])
    return outputs.result(intent_id, status, receipt, link)


def _found(call: Call, intent_id: UUID) -> tuple[Document, Document | None]:
    """An intent, and the receipt of its last attempt. Raises IntentNotFound."""
    with call.services.pool.connection() as connection:
        found = INTENTS.by_ids(connection, call.tenant, [(shard_of(intent_id), intent_id)])
        if not found:
            raise IntentNotFound("There is no such payment intent.")
        if not found[0]["attempts"]:
            return found[0], None
        last = decode(Prefix.PAYMENT, found[0]["attempts"][-1])
        return found[0], RECEIPTS.by_id(connection, shard_of(last), last, call.tenant)


def _command(method: str, path: str, handler: Any, name: str, summary: str, **more: Any) -> Route:
    return Route(
        method=method,
        path=path,
        handler=handler,
        name=name,
        summary=summary,
        scope=Scope.PAYMENTS_WRITE,
        family=FAMILY,
        errors=MEANINGS,
        needs_idempotency_key=True,
        body_types=(JSON_TYPE,),
        **more,
    )


def _query(path: str, handler: Any, name: str, summary: str, **more: Any) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        name=name,
        summary=summary,
        scope=Scope.PAYMENTS_READ,
        family=FAMILY,
        errors=MEANINGS,
        **more,
    )


ONE: Final = "/payment_intents/<intent_id>"
ROUTES: Final = (
    _command(
        "POST",
        "/payment_intents",
        create,
        "create_async_intent",
        "Say what is to be paid",
        body=AsyncIntentInput,
        answers={201: NewAsyncIntentOut},
        creates_intents=True,
    ),
    _command(
        "PATCH",
        f"{ONE}/confirm",
        confirm,
        "confirm_async_intent",
        "Have it paid, in the background",
        body=AsyncConfirmInput,
        query=ConfirmQuery,
        answers={202: ConfirmedOut},
    ),
    _query(
        ONE,
        get_intent,
        "get_async_intent",
        "A payment intent",
        answers={200: AsyncIntentOut},
    ),
    _query(
        "/payments/<intent_id>",
        get_result,
        "get_async_result",
        "What came of a payment intent",
        answers={200: ResultOut, 425: TooEarlyOut},
    ),
    _command(
        "POST",
        "/refunds",
        refund,
        "create_async_refund",
        "Give money back",
        body=AsyncRefundInput,
        pending=outputs.pending,
        answers={201: AsyncRefundOut, 202: AsyncRefundOut},
    ),
)
