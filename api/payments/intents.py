"""Payment intents: what is wanted, attempt by attempt. Spoken in Stripe's words, whoever asks."""

import hmac
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from api.auth import publishable_key_not_allowed
from api.errors import ApiError, from_refusal, invalid
from api.http import Answer, Call, Route, error_answer, json_answer
from api.instruments import instrument, paid_by
from api.lists import asked_page, told_page
from api.payments.commands import existing_customer, recorded, set_in
from api.payments.errors import declined_error
from api.payments.expand import check, expanded
from api.payments.inputs import (
    CancelIntentInput,
    CaptureIntentInput,
    ConfirmInput,
    IntentChange,
    IntentInput,
    IntentQuery,
    IntentsQuery,
    TermsInput,
    merged,
    missing,
    uuid_of,
)
from api.payments.methods import made_of, means_of
from api.payments.reading import INTENTS, Reader
from api.payments.schemas import IntentList, IntentOut
from api.return_urls import returning_to
from domain.cards import Card
from domain.commands import CancelIntent, CaptureIntent, ConfirmIntent, Instrument, Mode
from domain.errors import (
    AmountTooLarge,
    AmountTooSmall,
    DomainError,
    PartialAmountUnsupported,
)
from domain.ids import Prefix, beside, encode
from domain.intents import PaymentIntents
from domain.ledger import Reply, Settled
from domain.money import Money
from domain.payment import CaptureMethod, Payment
from domain.payment_intent import Attempt, IntentStatus, PaymentIntent, Terms
from domain.payment_method import ACCOUNT, CARD, PaymentMethod
from domain.records import BankCall, KeepPersonalData, Record, StoredAnswer
from infrastructure.api_keys import KeyType, Scope
from projections import receipts as receipts_model

FAMILY: Final = "payment_intents"
KIND: Final = "payment_intent"
CREATED: Final = "payment_intents created"  # the answer is the new intent's first
PERSONAL: Final = ("receipt_email", "shipping")
RETURN_URL: Final = "return_url"
CREATED_STATUS: Final = 201


@dataclass(frozen=True, slots=True)
class PaidWith:
    """What an attempt is paid with; and the method, where it is made on the way."""

    instrument: Instrument
    made: tuple[PaymentMethod, ...] = ()
    records: tuple[Record, ...] = ()


# --- commands -----------------------------------------------------------------------------------


def create(call: Call, body: IntentInput) -> Reply:
    """What a merchant wants to be paid; with `confirm`, and the first attempt."""
    check(KIND, call.expand)
    if call.key.type is KeyType.PUBLISHABLE and call.tenant.mode is not Mode.TEST:
        raise publishable_key_not_allowed()
    services = call.services
    intent_id = services.ids.new()
    paid_with = _paid_with(call, body, intent_id, body.whose()[1])
    terms = Terms(
        money=Money(body.amount, body.currency),
        confirmation_method=body.confirmation_method,
        metadata=set_in({}, body.metadata),
        **_given_terms(call, body),
    )
    if body.confirm and paid_with is None:
        raise invalid("missing_param", "payment_method is required to confirm.", "payment_method")
    intent = PaymentIntent.create(
        intent_id=intent_id,
        tenant=call.tenant,
        family=FAMILY,
        terms=_with_method(terms, paid_with),
        at=services.clock.now(),
    )
    if body.confirm:
        assert paid_with is not None
        return _attempt(call, body, paid_with, intent, {}, is_new=True)
    personal = merged(body, {}, PERSONAL)
    kept = KeepPersonalData(owner=intent.id, tenant=call.tenant, document=personal)
    return _recorded(call, intent, None, paid_with, kept, status=CREATED_STATUS)


def update(call: Call, body: IntentChange, *, intent_id: str) -> Reply:
    """Something else is wanted, before an attempt is made."""
    check(KIND, call.expand)
    intents = PaymentIntents(call.services.ledger)
    intent = intents.intent(uuid_of(Prefix.INTENT, intent_id), call.tenant)
    payment = intents.last_payment(intent)
    asked = {"customer", "customer_id"} & body.model_fields_set
    whose = body.whose()[1] if asked else intent.terms.customer_id
    paid_with = _paid_with(call, body, intent.id, whose)
    before = intent.terms
    money = Money(
        before.money.amount_minor if body.amount is None else body.amount,
        before.money.currency if body.currency is None else body.currency,
    )
    terms = replace(
        before,
        money=money,
        metadata=set_in(before.metadata, body.metadata),
        **_given_terms(call, body),
    )
    last = None if payment is None else Attempt.of(payment)
    personal = Reader(call.services, call.tenant).personal(intent.id)
    changed = merged(body, personal, PERSONAL)
    intent.update(
        _with_method(terms, paid_with),
        last,
        at=call.services.clock.now(),
        also_personal=changed != personal,
    )
    kept = KeepPersonalData(owner=intent.id, tenant=call.tenant, document=changed)
    settled = _recorded(call, intent, payment, paid_with, kept, status=200)
    if before.customer_id not in (None, terms.customer_id):
        call.services.erasure.unsay([intent.id])  # with whom they are erased no more
    return settled


def confirm(call: Call, body: ConfirmInput, *, intent_id: str) -> Reply:
    """An attempt."""
    check(KIND, call.expand)
    intent = _asked(call, intent_id, body.client_secret)
    whose = intent.terms.customer_id
    if body.payment_method_types is not None:
        _types(call, body.payment_method_types)
    paid_with = _paid_with(call, body, intent.id, whose)
    if paid_with is None and intent.terms.payment_method_id is not None:
        kept = instrument(call, intent.terms.payment_method_id, body.fresh_cvc, whose=whose)
        paid_with = PaidWith(kept)
    if paid_with is None:
        raise invalid("missing_param", "payment_method is required.", "payment_method")
    tells = {*PERSONAL, RETURN_URL} & body.model_fields_set
    personal = Reader(call.services, call.tenant).personal(intent.id) if tells else {}
    return _attempt(call, body, paid_with, intent, personal, is_new=False)


def _attempt(
    call: Call,
    body: IntentInput | ConfirmInput,
    paid_with: PaidWith,
    intent: PaymentIntent,
    personal: dict[str, Any],
    *,
    is_new: bool,
) -> Reply:
    command = ConfirmIntent(
        **call.command_fields(CREATED if is_new else FAMILY),
        intent_id=intent.id,
        instrument=paid_with.instrument,
        return_url=body.return_url
        and returning_to(body.return_url, KIND, encode(Prefix.INTENT, intent.id)),
        capture_method=_capture_method(body.capture_method),
    )
    told = merged(body, personal, (*PERSONAL, RETURN_URL))
    kept = KeepPersonalData(owner=intent.id, tenant=call.tenant, document=told)
    records = [*([] if told == personal else [kept]), *paid_with.records]
    intents = PaymentIntents(call.services.ledger)
    if isinstance(paid_with.instrument.means, Card):
        return intents.confirm(command, intent, *records, made=paid_with.made)

    def answer(intent: PaymentIntent, payment: Payment) -> StoredAnswer:
        return _answer(call, intent, payment, told, status=201 if is_new else 200).stored()

    return intents.confirm_transfer(command, intent, *records, made=paid_with.made, answer=answer)


def capture(call: Call, body: CaptureIntentInput, *, intent_id: str) -> Reply:
    """What is held is taken."""
    check(KIND, call.expand)
    intents, uuid = PaymentIntents(call.services.ledger), uuid_of(Prefix.INTENT, intent_id)
    names = ("statement_descriptor", "statement_descriptor_suffix")
    changes = {name: getattr(body, name) for name in names if name in body.model_fields_set}
    if body.metadata is not None:
        before = intents.intent(uuid, call.tenant).terms.metadata
        changes["metadata"] = set_in(before, body.metadata)
    command = CaptureIntent(
        **call.command_fields(FAMILY),
        intent_id=uuid,
        amount_minor=body.amount_to_capture,
        changes=changes,
    )
    try:
        return intents.capture(command)
    except (AmountTooLarge, AmountTooSmall, PartialAmountUnsupported) as error:
        raise replace(from_refusal(error), param="amount_to_capture") from error


def cancel(call: Call, body: CancelIntentInput, *, intent_id: str) -> Reply:
    """It is given up, and what was held is released."""
    check(KIND, call.expand)
    command = CancelIntent(
        **call.command_fields(FAMILY),
        intent_id=uuid_of(Prefix.INTENT, intent_id),
        reason=body.cancellation_reason,
    )

    def told(intent: PaymentIntent, payment: Payment | None) -> StoredAnswer:
        personal = Reader(call.services, call.tenant).personal(intent.id)
        return _answer(call, intent, payment, personal, status=200).stored()

    reply = PaymentIntents(call.services.ledger).cancel(command, told)
    return Settled(answer=reply, history=()) if isinstance(reply, StoredAnswer) else reply


def _recorded(
    call: Call,
    intent: PaymentIntent,
    payment: Payment | None,
    paid_with: PaidWith | None,
    kept: KeepPersonalData,
    *,
    status: int,
) -> Settled:
    """What asked nothing of the bank, answered at once."""
    answer = _answer(call, intent, payment, dict(kept.document), status=status)
    made, records = (paid_with.made, paid_with.records) if paid_with else ((), ())
    # Nothing is kept of nobody; but what was kept may have to go.
    beside = [kept] if kept.document or status != CREATED_STATUS else []
    return recorded(call, (intent, *made), answer.stored(), [*beside, *records])


def _answer(
    call: Call,
    intent: PaymentIntent,
    payment: Payment | None,
    personal: dict[str, Any],
    *,
    status: int,
) -> Answer:
    reader = Reader(call.services, call.tenant)
    receipt = None if payment is None else receipts_model.fold(payment.history)
    body = reader.intent_of(INTENTS.fold(intent.history), receipt, personal)
    charges = [] if receipt is None else reader.charges([receipt])
    return json_answer(status, expanded(body, call.expand, reader, charges))


def _asked(call: Call, intent_id: str, client_secret: str | None) -> PaymentIntent:
    """The intent, which a publishable key is told of for its secret only. Raises IntentNotFound."""
    uuid = uuid_of(Prefix.INTENT, intent_id)
    _check_secret(call, intent_id, client_secret)
    return PaymentIntents(call.services.ledger).intent(uuid, call.tenant)


def _check_secret(call: Call, intent_id: str, given: str | None) -> None:
    if given is None and call.key.type is not KeyType.PUBLISHABLE:
        return
    secret = Reader(call.services, call.tenant).client_secret(intent_id)
    if not hmac.compare_digest(secret.encode(), (given or "").encode()):
        raise missing(Prefix.INTENT)


@contextmanager
def _named_within(whole: str) -> Iterator[None]:
    """A field that is wrong in a part of the request is named with that part."""
    try:
        yield
    except (ApiError, DomainError) as error:
        if error.param is not None:
            first, bracket, rest = error.param.partition("[")
            error.param = f"{whole}[{first}]{bracket}{rest}"
        raise


def _paid_with(
    call: Call, body: TermsInput | ConfirmInput, intent_id: UUID, whose: str | None
) -> PaidWith | None:
    """What was given to pay with. `whose`: the intent's customer. Raises ApiError, NotFound."""
    if body.payment_method_data is not None:
        with _named_within("payment_method_data"):
            given = means_of(call, body.payment_method_data)
            means = given.means
            if isinstance(means, Card):
                means = replace(means, cvc=body.fresh_cvc or means.cvc)
            # Beside its intent, so that both are recorded in one append.
            method_id = beside(call.services.ids.new(), intent_id)
            method, records = made_of(call, means, body.payment_method_data, method_id)
        return PaidWith(paid_by(call, method, means), (method,), (*records, *given.records))
    if body.payment_method is None:
        return None
    return PaidWith(instrument(call, body.payment_method, body.fresh_cvc, whose=whose))


def _with_method(terms: Terms, paid_with: PaidWith | None) -> Terms:
    if paid_with is None:
        return terms
    return replace(terms, payment_method_id=paid_with.instrument.method_id)


def _given_terms(call: Call, body: TermsInput) -> dict[str, Any]:
    """Those of the terms that were given, but for the money and the metadata. Raises ApiError."""
    given: dict[str, Any] = {
        name: getattr(body, name)
        for name in ("description", "statement_descriptor", "statement_descriptor_suffix")
        if name in body.model_fields_set
    }
    capture_method = _capture_method(body.capture_method)
    if capture_method is not None:
        given["capture_method"] = capture_method
    if body.payment_method_types is not None:
        given["payment_method_types"] = _types(call, body.payment_method_types)
    param, customer_id = body.whose()
    if customer_id is not None:
        existing_customer(call, customer_id, param)
    if {"customer", "customer_id"} & body.model_fields_set:
        given["customer_id"] = customer_id
    return given


def _capture_method(given: str | None) -> CaptureMethod | None:
    if given is None:
        return None
    return CaptureMethod.MANUAL if given == "manual" else CaptureMethod.AUTOMATIC


def _types(call: Call, types: Sequence[str]) -> tuple[str, ...]:
    taken = {CARD, ACCOUNT} if call.services.ledger.bank.capabilities.bank_transfers else {CARD}
    if not taken & set(types):
        raise invalid(
            "payment_method_type_unsupported",
            f"What can be paid with: {', '.join(sorted(taken))}.",
            "payment_method_types",
        )
    return tuple(types)


# --- what the bank's answers make of them -------------------------------------------------------


def settled(reader: Reader, history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
    """The final answer to a command on an intent."""
    receipt = receipts_model.fold(history)
    body = reader.intent(receipt["intent_id"], known={receipt["payment_id"]: receipt})
    error = declined_error(receipt, body, call, history)
    if error is not None:
        answer = error_answer(error, call.audience.dialect, call.cause.request_id)
    else:
        status = 201 if call.audience.family == CREATED else 200
        charges = reader.charges([receipt])
        answer = json_answer(status, expanded(body, call.audience.expand, reader, charges))
    return answer.stored()


def pending(call: Call, history: Sequence[Payment.Event]) -> Answer:
    """Not known in time: the intent is processing, or a shopper has to act."""
    reader, body = _undecided(call, history)
    return json_answer(200, expanded(body, call.expand, reader))


def created_pending(call: Call, history: Sequence[Payment.Event]) -> Answer:
    """The same of an intent that was made by the request. That a shopper has to act is known."""
    reader, body = _undecided(call, history)
    status = 201 if body["status"] == IntentStatus.REQUIRES_ACTION else 200
    return json_answer(status, expanded(body, call.expand, reader))


def _undecided(call: Call, history: Sequence[Payment.Event]) -> tuple[Reader, dict[str, Any]]:
    receipt = receipts_model.fold(history)
    reader = Reader(call.services, call.tenant)
    return reader, reader.intent(receipt["intent_id"], known={receipt["payment_id"]: receipt})


# --- queries ------------------------------------------------------------------------------------


def get(call: Call, query: IntentQuery, *, intent_id: str) -> Answer:
    """One intent."""
    _check_secret(call, intent_id, query.client_secret)
    reader = Reader(call.services, call.tenant)
    return json_answer(200, expanded(reader.intent(intent_id), query.expand, reader))


def list_intents(call: Call, query: IntentsQuery) -> Answer:
    """Intents, newest first."""
    reader = Reader(call.services, call.tenant)

    def cursor(text: str, param: str) -> UUID:
        reader.record(INTENTS, Prefix.INTENT, text, param)
        return uuid_of(Prefix.INTENT, text, param)

    page = asked_page(query, {"customer_id": query.customer}, cursor)
    records, has_more = reader.page(INTENTS, page)
    body = told_page(
        reader.intents(records),
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


ONE: Final = "/v1/payment_intents/<intent_id>"


def _command(path: str, handler: Any, name: str, summary: str, body: Any, **more: Any) -> Route:
    return Route(
        method="POST",
        path=path,
        handler=handler,
        name=name,
        body=body,
        scope=Scope.PAYMENTS_WRITE,
        summary=summary,
        family=FAMILY,
        **{"pending": pending, "answers": {200: IntentOut}, **more},
    )


ROUTES: Final = (
    _command(
        "/v1/payment_intents",
        create,
        "create_intent",
        "Say what is to be paid",
        IntentInput,
        pending=created_pending,
        answers={200: IntentOut, 201: IntentOut},
        takes_publishable_keys=True,
        creates_intents=True,
    ),
    _command(ONE, update, "update_intent", "Change what is to be paid", IntentChange),
    _command(
        f"{ONE}/confirm",
        confirm,
        "confirm_intent",
        "Make an attempt",
        ConfirmInput,
        takes_publishable_keys=True,
    ),
    _command(f"{ONE}/capture", capture, "capture_intent", "Take what is held", CaptureIntentInput),
    _command(f"{ONE}/cancel", cancel, "cancel_intent", "Give it up", CancelIntentInput),
    Route(
        method="GET",
        path="/v1/payment_intents",
        handler=list_intents,
        query=IntentsQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List payment intents, newest first",
        family=FAMILY,
        answers={200: IntentList},
    ),
    Route(
        method="GET",
        path=ONE,
        handler=get,
        name="get_intent",
        query=IntentQuery,
        scope=Scope.PAYMENTS_READ,
        summary="A payment intent",
        family=FAMILY,
        answers={200: IntentOut},
        takes_publishable_keys=True,
    ),
)
