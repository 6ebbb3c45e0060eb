"""Payment methods: cards and accounts that may be used again, and what stands for one in test mode."""

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
from api.instruments import GivenCard, card_in_test_mode, card_of_token, fingerprint
from api.lists import asked_page, told_page
from api.payments import objects
from api.payments.commands import done, existing_customer, set_in, versioned
from api.payments.expand import check, expanded
from api.payments.inputs import (
    AttachInput,
    CardInput,
    ExpandQuery,
    MethodChange,
    MethodData,
    MethodInput,
    MethodsQuery,
    NothingInput,
    merged,
    missing,
    uuid_of,
)
from api.payments.reading import CUSTOMERS, METHODS, Reader
from api.payments.schemas import PaymentMethodList, PaymentMethodOut
from domain.accounts import BankAccount, Means
from domain.cards import Card
from domain.ids import Prefix
from domain.ledger import Settled
from domain.payment_method import ACCOUNT, CARD, PaymentMethod
from domain.records import ForgetCard, ForgetPersonalData, KeepPersonalData, Record
from infrastructure.api_keys import Scope

FAMILY: Final = "payments"
KIND: Final = "payment_method"
BILLING_FIELDS: Final = ("address", "email", "name", "phone")


def create(call: Call, body: MethodInput) -> Settled:
    """A card or an account, to be used once or again."""
    check(KIND, call.expand)
    given = means_of(call, body)
    method, records = made_of(call, given.means, body, call.services.ids.new())
    return done(call, method, _told(method, records), *records, *given.records, status=201)


@dataclass(frozen=True, slots=True)
class GivenMeans:
    """A whole card or account, and what has to be recorded with its use."""

    means: Means
    records: tuple[Record, ...] = ()


def means_of(call: Call, body: MethodData) -> GivenMeans:
    """What was given to pay with. Raises ApiError, NotFound, TokenAlreadyUsed, TokenExpired."""
    other = {CARD: ACCOUNT, ACCOUNT: CARD}[body.type]
    if getattr(body, other) is not None:
        raise invalid("invalid_param", f"{other} is of another type than {body.type}.", other)
    if getattr(body, body.type) is None:
        raise invalid("missing_param", f"{body.type} is required.", body.type)
    if body.card is not None:
        card = whole_card(call, body.card)
        return GivenMeans(card.card, card.records)
    return GivenMeans(_whole_account(body))


def _whole_account(body: MethodData) -> BankAccount:
    name = body.billing_details and body.billing_details.name
    if not (name and name.strip()):
        param = "billing_details[name]"
        raise invalid("missing_param", f"{param} is required: whose account it is.", param)
    account = body.bacs_debit
    assert account is not None
    return BankAccount(number=account.account_number, sort_code=account.sort_code, holder_name=name)


def made_of(
    call: Call, means: Means, body: MethodData, method_id: UUID
) -> tuple[PaymentMethod, list[Record]]:
    """A new payment method under this id, and what is kept beside it. Raises CardRefused."""
    services = call.services
    if isinstance(means, Card):
        means.check(services.clock.now())
    method = PaymentMethod.create(
        method_id=method_id,
        tenant=call.tenant,
        face=means.face(),
        fingerprint=fingerprint(call, means),
        metadata=set_in({}, body.metadata),
        at=services.clock.now(),
    )
    billing = merged(body.billing_details, {}, BILLING_FIELDS) if body.billing_details else {}
    cards = services.cards
    return method, [
        cards.sealed(method.id, means)
        if isinstance(means, Card)
        else cards.sealed_account(method.id, means),
        KeepPersonalData(owner=method.id, tenant=call.tenant, document=billing),
    ]


def whole_card(call: Call, given: CardInput) -> GivenCard:
    """The card, by its number or by a token. Raises ApiError, TokenNotFound, TokenAlreadyUsed,
    TokenExpired."""
    if given.token is not None:
        return card_of_token(call, given.token, param="card[token]")
    for name in ("number", "exp_month", "exp_year"):
        if getattr(given, name) is None:
            raise invalid("missing_param", f"card[{name}] is required.", f"card[{name}]")
    assert given.number is not None
    assert given.exp_month is not None
    assert given.exp_year is not None
    card = Card(
        number=given.number, exp_month=given.exp_month, exp_year=given.exp_year, cvc=given.cvc
    )
    return GivenCard(card)


def update(call: Call, body: MethodChange, *, method_id: str) -> Settled:
    """What is given is changed, and nothing else."""
    check(KIND, call.expand)
    method = _method(call, method_id)
    card = body.card
    if card is not None and method.type != CARD:
        raise invalid("invalid_param", "The payment method is not a card.", "card")
    before = billing = Reader(call.services, call.tenant).personal(method.id)
    if body.billing_details is not None:
        billing = merged(body.billing_details, before, BILLING_FIELDS)
    method.update(
        metadata=set_in(method.metadata, body.metadata),
        exp_month=card.exp_month if card else None,
        exp_year=card.exp_year if card else None,
        at=call.services.clock.now(),
        also_personal=billing != before,
    )
    kept = KeepPersonalData(owner=method.id, tenant=call.tenant, document=billing)
    return done(call, method, _told(method, [kept]), kept)


def attach(call: Call, body: AttachInput, *, method_id: str) -> Settled:
    """From now on it is a customer's."""
    check(KIND, call.expand)
    method, records = _method_or_made(call, method_id)
    existing_customer(call, body.customer, "customer")
    method.attach(body.customer, at=call.services.clock.now())
    if records:
        return done(call, method, _told(method, records), *records)
    return done(call, method, _published(call, method))


def detach(call: Call, _body: NothingInput, *, method_id: str) -> Settled:
    """It is nobody's, and gone for good: the number is erased with this, and who was billed."""
    check(KIND, call.expand)
    method = _method(call, method_id)
    method.detach(at=call.services.clock.now())
    settled = done(
        call,
        method,
        objects.payment_method(METHODS.fold(method.history), {}),
        ForgetCard(method_id=method.id),
        ForgetPersonalData(owner=method.id),
    )
    call.services.erasure.forget([method.id])
    return settled


def _method_or_made(call: Call, method_id: str) -> tuple[PaymentMethod, list[Record]]:
    """The method of that id; or one of its own, and what is kept beside it, for a card that a name
    stands for in test mode. Raises PaymentMethodNotFound."""
    if card_in_test_mode(call, method_id) is None:
        return _method(call, method_id), []
    body = MethodInput(type="card", card=CardInput(token=method_id))
    return made_of(call, means_of(call, body).means, body, call.services.ids.new())


def _method(call: Call, method_id: str) -> PaymentMethod:
    method = versioned(call, PaymentMethod, uuid_of(Prefix.PAYMENT_METHOD, method_id))
    if method is None:
        raise missing(Prefix.PAYMENT_METHOD)
    return method


def _published(call: Call, method: PaymentMethod) -> dict[str, Any]:
    billing = Reader(call.services, call.tenant).personal(method.id)
    return objects.payment_method(METHODS.fold(method.history), billing)


def _told(method: PaymentMethod, records: list[Record] | list[KeepPersonalData]) -> dict[str, Any]:
    billing = next(each.document for each in records if isinstance(each, KeepPersonalData))
    return objects.payment_method(METHODS.fold(method.history), billing)


def get(call: Call, query: ExpandQuery, *, method_id: str) -> Answer:
    """One payment method."""
    reader = Reader(call.services, call.tenant)
    return json_answer(200, expanded(reader.payment_method(method_id), query.expand, reader))


def list_methods(call: Call, query: MethodsQuery) -> Answer:
    """Payment methods, newest first."""
    return _listed(call, query, query.customer, "customer")


def list_of_customer(call: Call, query: MethodsQuery, *, customer_id: str) -> Answer:
    """A customer's payment methods, newest first."""
    return _listed(call, query, customer_id, None)


def _listed(call: Call, query: MethodsQuery, customer_id: str | None, param: str | None) -> Answer:
    reader = Reader(call.services, call.tenant)
    if customer_id is not None:
        reader.record(CUSTOMERS, Prefix.CUSTOMER, customer_id, param)

    def cursor(text: str, param: str) -> UUID:
        reader.record(METHODS, Prefix.PAYMENT_METHOD, text, param)
        return uuid_of(Prefix.PAYMENT_METHOD, text, param)

    page = asked_page(query, {"customer_id": customer_id, "type": query.type}, cursor)
    records, has_more = reader.page(METHODS, page)
    body = told_page(
        reader.payment_methods(records),
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


def get_of_customer(call: Call, query: ExpandQuery, *, customer_id: str, method_id: str) -> Answer:
    """One of a customer's payment methods."""
    reader = Reader(call.services, call.tenant)
    found = reader.payment_method(method_id)
    if found["customer"] != customer_id:
        raise missing(Prefix.PAYMENT_METHOD)
    return json_answer(200, expanded(found, query.expand, reader))


def _command(path: str, handler: Any, summary: str, body: Any, **more: Any) -> Route:
    return Route(
        method="POST",
        path=path,
        handler=handler,
        summary=summary,
        body=body,
        name=f"{handler.__name__}_method",
        scope=Scope.PAYMENTS_WRITE,
        family=FAMILY,
        **{"answers": {200: PaymentMethodOut}, **more},
    )


def _query(path: str, handler: Any, summary: str, query: Any, out: Any) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        summary=summary,
        query=query,
        name=f"{handler.__name__}_method",
        scope=Scope.PAYMENTS_READ,
        family=FAMILY,
        answers={200: out},
    )


ONE: Final = "/v1/payment_methods/<method_id>"
OF_CUSTOMER: Final = "/v1/customers/<customer_id>/payment_methods"
ROUTES: Final = (
    _command(
        "/v1/payment_methods",
        create,
        "Create a payment method",
        MethodInput,
        answers={201: PaymentMethodOut},
        takes_publishable_keys=True,
    ),
    _command(ONE, update, "Change a payment method", MethodChange),
    _command(f"{ONE}/attach", attach, "Give it to a customer", AttachInput),
    _command(f"{ONE}/detach", detach, "Take it away for good", NothingInput),
    _query(
        "/v1/payment_methods",
        list_methods,
        "List payment methods, newest first",
        MethodsQuery,
        PaymentMethodList,
    ),
    _query(ONE, get, "A payment method", ExpandQuery, PaymentMethodOut),
    _query(
        OF_CUSTOMER,
        list_of_customer,
        "List a customer's payment methods",
        MethodsQuery,
        PaymentMethodList,
    ),
    _query(
        f"{OF_CUSTOMER}/<method_id>",
        get_of_customer,
        "One of a customer's payment methods",
        ExpandQuery,
        PaymentMethodOut,
    ),
)
