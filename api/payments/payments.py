"""Payments: money taken by one request, of a card, a wallet or an account at another bank. In their
vocabulary all payments are told of, whatever they were asked for as."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import UUID

from api.errors import INVALID_REQUEST, ApiError, from_decline, invalid
from api.http import (
    RETRY_AFTER_PENDING_SECONDS,
    Answer,
    Call,
    Route,
    error_answer,
    json_answer,
)
from api.instruments import card_of_token, fingerprint, refuse_without_cvc
from api.lists import asked_page, told_page
from api.payments import objects
from api.payments.commands import existing_customer
from api.payments.inputs import (
    ConfirmPaymentInput,
    PaymentInput,
    PaymentsQuery,
    SourceInput,
    missing,
    uuid_of,
)
from api.payments.reading import RECEIPTS, Reader
from api.payments.schemas import PaymentList, PaymentOut
from api.return_urls import returning_to
from domain.accounts import BankAccount, Means
from domain.cards import Card
from domain.commands import MakePayment
from domain.errors import DomainError, PaymentNotFound, PaymentStateConflict
from domain.ids import Prefix, encode
from domain.ledger import Reply, Settled
from domain.money import Money
from domain.payment import BANK_PROTOCOL_ERROR, REMARKS, Payment, ReviewReason
from domain.records import BankCall, Record, StoredAnswer
from infrastructure.api_keys import Scope
from projections import receipts

FAMILY: Final = "payments"
# What a source is given by, by its type.
GIVEN_BY: Final = {
    "card": {"token", "number", "exp_month", "exp_year", "cvc"},
    "bank_transfer": {"bank_account"},
    "apple_pay": {"token"},
}
TYPED: Final = ("number", "exp_month", "exp_year")
NAMES: Final = ("number", "exp_month", "exp_year", "type")


@dataclass(frozen=True, slots=True)
class Source:
    """What a payment is paid with, whole, and what has to be recorded with its use. `token`: by which
    it was given."""

    means: Means
    token: str | None = None
    records: tuple[Record, ...] = ()


# --- commands -----------------------------------------------------------------------------------


def create(call: Call, body: PaymentInput) -> Reply:
    """Takes money at once."""
    if body.customer_id is not None:
        existing_customer(call, body.customer_id, "customer_id")
    source = _source(call, body.source)
    command = MakePayment(
        **call.command_fields(FAMILY),
        customer_id=body.customer_id,
        money=Money(body.amount, body.currency),
        means=source.means,
        method_id=source.token,
        fingerprint=fingerprint(call, source.means),
        description=body.description,
        metadata=body.metadata,
    )
    try:
        return _taken(call, command, source)
    except DomainError as error:
        name = (error.param or "").removeprefix("card[").removesuffix("]")
        if name in NAMES:
            error.param = f"source[{name}]"
        raise


def _taken(call: Call, command: MakePayment, source: Source) -> Reply:
    ledger = call.services.ledger
    if isinstance(source.means, Card):
        return ledger.pay(command, *source.records)

    def answer(payment: Payment) -> StoredAnswer:
        return _told(payment.history, 201).stored()

    return Settled(answer=ledger.transfer(command, answer), history=())


def _source(call: Call, given: SourceInput) -> Source:
    """What is paid with. Raises ApiError, TokenNotFound, TokenAlreadyUsed, TokenExpired."""
    foreign = sorted(given.given - GIVEN_BY[given.type])
    if foreign:
        param = f"source[{foreign[0]}]"
        raise invalid("unknown_param", f"{param} is not of a source of this type.", param)
    if given.type == objects.BANK_TRANSFER:
        return Source(_account(given))
    if given.token is None:
        return Source(_typed_card(call, given))
    is_wallet = given.token.startswith(objects.WALLET_PREFIX)
    if given.given != {"token"} or is_wallet != (given.type == objects.WALLET):
        raise invalid("invalid_param", "source[token] is not of this type.", "source[token]")
    card = card_of_token(call, given.token, param="source[token]")
    return Source(card.card, given.token, card.records)


def _typed_card(call: Call, given: SourceInput) -> Card:
    needed = TYPED if given.type == "card" and given.given else ("token",)
    for name in needed:
        if getattr(given, name) is None:
            raise invalid("missing_param", f"source[{name}] is required.", f"source[{name}]")
    assert given.number is not None
    assert given.exp_month is not None
    assert given.exp_year is not None
    card = Card(
        number=given.number, exp_month=given.exp_month, exp_year=given.exp_year, cvc=given.cvc
    )
    refuse_without_cvc(call, card, "source[cvc]")
    return card


def _account(given: SourceInput) -> BankAccount:
    account = given.bank_account
    if account is None:
        param = "source[bank_account]"
        raise invalid("missing_param", f"{param} is required.", param)
    return BankAccount(
        number=account.account_number,
        sort_code=account.sort_code,
        holder_name=account.account_holder_name,
    )


def confirm(call: Call, body: ConfirmPaymentInput, *, payment_id: str) -> Settled:
    """Where the shopper has to go, who then returns to where is said here. It changes nothing: asked
    again, it is answered again."""
    uuid = uuid_of(Prefix.PAYMENT, payment_id)
    return_url = returning_to(body.return_url, "payment", payment_id)
    try:
        payment = call.services.ledger.payment(uuid, call.tenant)
    except PaymentNotFound as error:
        raise missing(Prefix.PAYMENT) from error
    if payment.action_url is None:
        raise PaymentStateConflict(
            "The payment does not wait for its shopper.", code="payment_requires_no_action"
        )
    told = objects.payment(receipts.fold(payment.history))
    told["next_action"] = objects.redirect(_page(payment.action_url, return_url), body.return_url)
    return Settled(answer=json_answer(200, told).stored(), history=())


def _page(url: str, return_url: str) -> str:
    """The bank's page, which is told there where the shopper goes next."""
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), ("return_url", return_url)]
    return urlunsplit(parts._replace(query=urlencode(query)))


# --- what the bank's answers make of them -------------------------------------------------------


def settled(history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
    """The final answer to who asked for a payment."""
    event = next(each for each in reversed(history) if not isinstance(each, REMARKS))
    error = _error_of(event, encode(Prefix.PAYMENT, event.originator_id))
    if error is None:
        answer = _told(history, 201)
    else:
        answer = error_answer(error, call.audience.dialect, call.cause.request_id)
    return answer.stored()


def _error_of(event: Payment.Event, payment_id: str) -> ApiError | None:
    """What the last event is told as, where that is an error."""
    code = getattr(event, "code", None)
    if code in (BANK_PROTOCOL_ERROR, ReviewReason.BANK_DISAGREES):
        return ApiError(
            status=502,
            type="api_error",
            code=BANK_PROTOCOL_ERROR,
            message="The bank did not understand our request, or answered something else.",
            payment_id=payment_id,
        )
    match event:
        case Payment.AuthorizationDeclined():
            return from_decline(event.code, payment_id)
        case Payment.Voided() | Payment.Expired():
            return from_decline(objects.PROCESSING_ERROR, payment_id)
        case Payment.CaptureDeclined() | Payment.VoidDeclined():
            return ApiError(
                status=409,
                type=INVALID_REQUEST,
                code="capture_refused",
                message="The bank refused to take what it holds. A person will look.",
                payment_id=payment_id,
            )
        case _:
            return None


def pending(_call: Call, history: Sequence[Payment.Event]) -> Answer:
    """Not known in time: what is certain, and where to look. That a shopper has to approve is certain."""
    if objects.payment_status(receipts.fold(history)) == objects.REQUIRES_ACTION:
        return _told(history, 201)
    answer = _told(history, 202)
    headers = {**answer.headers, "Retry-After": str(RETRY_AFTER_PENDING_SECONDS)}
    return Answer(status=202, body=answer.body, headers=headers)


def _told(history: Sequence[Payment.Event], status: int) -> Answer:
    body = objects.payment(receipts.fold(history))
    return json_answer(status, body, {"Location": f"/v1/payments/{body['id']}"})


# --- queries ------------------------------------------------------------------------------------


def get(call: Call, _query: None, *, payment_id: str) -> Answer:
    """One payment, whatever it was asked for as."""
    uuid = uuid_of(Prefix.PAYMENT, payment_id)
    found = Reader(call.services, call.tenant).receipts([uuid])
    if not found:
        raise missing(Prefix.PAYMENT)
    return json_answer(200, objects.payment(found[uuid]))


def list_payments(call: Call, query: PaymentsQuery) -> Answer:
    """Payments, newest first."""
    reader = Reader(call.services, call.tenant)

    def cursor(text: str, param: str) -> UUID:
        uuid = uuid_of(Prefix.PAYMENT, text, param)
        if not reader.receipts([uuid]):
            raise missing(Prefix.PAYMENT, param)
        return uuid

    wanted: dict[str, Any] = {"customer_id": query.customer_id, "payment_status": query.status}
    page = asked_page(query, wanted, cursor)
    with call.services.pool.connection() as connection:
        documents, has_more = RECEIPTS.page(connection, call.tenant, page)
    body = told_page(
        [objects.payment(document) for document in documents],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, body)


ONE: Final = "/v1/payments/<payment_id>"
ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/payments",
        handler=create,
        name="create_payment",
        pending=pending,
        body=PaymentInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Take money at once",
        family=FAMILY,
        answers={201: PaymentOut, 202: PaymentOut},
    ),
    Route(
        method="GET",
        path="/v1/payments",
        handler=list_payments,
        query=PaymentsQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List payments, newest first",
        family=FAMILY,
        answers={200: PaymentList},
    ),
    Route(
        method="GET",
        path=ONE,
        handler=get,
        name="get_payment",
        scope=Scope.PAYMENTS_READ,
        summary="A payment",
        family=FAMILY,
        answers={200: PaymentOut},
    ),
    Route(
        method="POST",
        path=f"{ONE}/confirm",
        handler=confirm,
        name="confirm_payment",
        body=ConfirmPaymentInput,
        scope=Scope.PAYMENTS_WRITE,
        summary="Say where the shopper returns to who has to approve",
        family=FAMILY,
        answers={200: PaymentOut},
    ),
)
