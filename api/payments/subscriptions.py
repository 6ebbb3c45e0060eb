"""Subscriptions: a customer pays for one period after the other, by a stored method."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from api.errors import invalid
from api.http import (
    RETRY_AFTER_PENDING_SECONDS,
    Answer,
    Call,
    error_answer,
    json_answer,
    routes_of,
)
from api.instruments import card_in_test_mode
from api.lists import asked_page, told_page
from api.payments import billing_objects
from api.payments.billing_inputs import (
    CancelSubscriptionInput,
    InvoicesQuery,
    PayInvoiceInput,
    SubscriptionChange,
    SubscriptionInput,
    SubscriptionsQuery,
)
from api.payments.commands import recorded, set_in
from api.payments.errors import declined_error
from api.payments.expand import check, expanded
from api.payments.inputs import ExpandQuery, missing, uuid_of
from api.payments.reading import CUSTOMERS, INVOICES, METHODS, SUBSCRIPTIONS, Reader
from api.payments.schemas import InvoiceList, InvoiceOut, SubscriptionList, SubscriptionOut
from domain.billing import Due, Ending
from domain.commands import Command
from domain.errors import CardsOnFileUnsupported, CustomerNotFound
from domain.ids import Prefix, decode, encode
from domain.invoice import intent_of, invoice_of
from domain.ledger import Reply, Settled, replayed
from domain.payment import Payment
from domain.payment_method import CARD
from domain.records import BankCall, StoredAnswer
from domain.subscription import Subscription
from infrastructure.api_keys import Scope
from infrastructure.services import Services
from projections import receipts as receipts_model
from projections.pages import Page

FAMILY: Final = "payments"
CREATED: Final = "subscriptions created"  # the answer is the new subscription
PAID: Final = "invoices paid"  # the answer is the invoice, or why it was not paid
KIND: Final = "subscription"
INVOICE: Final = "invoice"

Document = dict[str, Any]


# --- commands -----------------------------------------------------------------------------------


def create(call: Call, body: SubscriptionInput) -> Reply:
    """A customer subscribes, and the first period is paid at once."""
    check(KIND, call.expand)
    services = call.services
    if not services.ledger.bank.capabilities.cvc_optional:
        raise CardsOnFileUnsupported(
            "The bank in use takes no card on file without its CVC, so nothing can be subscribed to."
        )
    plan, customer = body.plan(), _customer(call, body.customer)
    method_id = _method_id(call, body.default_payment_method, customer)
    clock_id, when = time_of(services, call, customer)
    subscription = Subscription.create(
        subscription_id=services.ids.new(),
        tenant=call.tenant,
        customer_id=customer,
        payment_method_id=method_id,
        plan=plan,
        description=body.description,
        metadata=set_in({}, body.metadata),
        cancel_at_period_end=body.cancel_at_period_end,
        clock_id=clock_id,
        anchor=when,
        at=services.clock.now(),
    )
    due, intent = services.billing.begin(subscription, when=when)
    instrument = services.wallet.instrument(call.tenant, method_id, customer)
    command = Command(**call.command_fields(CREATED))
    return services.billing.pay(due, instrument, command, intent, when=when)


def update(call: Call, body: SubscriptionChange, *, subscription_id: str) -> Settled:
    """What is given is changed, and nothing else."""
    check(KIND, call.expand)
    subscription = _subscription(call, subscription_id)
    given, method_id = body.model_fields_set, subscription.payment_method_id
    if body.default_payment_method is not None:
        method_id = _method_id(call, body.default_payment_method, subscription.customer_id)
    ends = body.cancel_at_period_end
    subscription.update(
        payment_method_id=method_id,
        description=body.description if "description" in given else subscription.description,
        metadata=set_in(subscription.metadata, body.metadata),
        cancel_at_period_end=subscription.cancel_at_period_end if ends is None else ends,
        at=call.services.clock.now(),
    )
    return _told(call, subscription)


def cancel(call: Call, _body: CancelSubscriptionInput, *, subscription_id: str) -> Settled:
    """It ends now; what was paid stays paid."""
    check(KIND, call.expand)
    subscription = _subscription(call, subscription_id)
    _, when = time_of(call.services, call, subscription.customer_id)
    ending = call.services.billing.cancel(subscription, call.cause, when=when)
    return _told(call, subscription, ending)


def cancel_all_of(call: Call, customer_id: str) -> None:
    """Ends all that a customer subscribed to, who is about to be forgotten."""
    reader = Reader(call.services, call.tenant)
    wanted = {"customer_id": customer_id, "status": ["active", "incomplete", "past_due"]}
    while records := reader.page(SUBSCRIPTIONS, Page(limit=100, filters=wanted))[0]:
        for record in records:
            subscription = _subscription(call, record["id"])
            _, when = time_of(call.services, call, customer_id)
            ending = call.services.billing.cancel(subscription, call.cause, when=when)
            changed = (subscription, *ending.changed)
            call.services.ledger.record(changed, call.cause, ending.records)


def pay(call: Call, body: PayInvoiceInput, *, invoice_id: str) -> Reply:
    """An open invoice is tried now."""
    check(INVOICE, call.expand)
    services = call.services
    due = services.billing.due(uuid_of(Prefix.INVOICE, invoice_id), call.tenant)
    due.invoice.refuse_unless_payable()
    subscription = due.subscription
    method_id = subscription.payment_method_id
    if body.payment_method is not None:
        method_id = _method_id(
            call, body.payment_method, subscription.customer_id, "payment_method"
        )
    instrument = services.wallet.instrument(call.tenant, method_id, subscription.customer_id)
    _, when = time_of(services, call, subscription.customer_id)
    command = Command(**call.command_fields(PAID))
    return services.billing.pay(due, instrument, command, when=when)


def time_of(services: Services, call: Call, customer_id: str) -> tuple[str | None, datetime]:
    """The clock that a customer lives by, and what it says; None and the present for most."""
    clocks = services.test_clocks
    clock_id = clocks.of_customers(call.tenant, [customer_id]).get(customer_id)
    clock = None if clock_id is None else clocks.find(clock_id, call.tenant)
    if clock is None:
        return None, services.clock.now()
    if not clock.is_ready:
        raise invalid(
            "test_clock_advancing", "The customer's test clock is on its way.", status=409
        )
    return encode(Prefix.TEST_CLOCK, clock.id), clock.frozen_time


def _customer(call: Call, customer_id: str) -> str:
    reader = Reader(call.services, call.tenant)
    record = reader.record(CUSTOMERS, Prefix.CUSTOMER, customer_id, "customer")
    if record["is_deleted"]:
        raise CustomerNotFound("There is no such customer.", param="customer")
    return customer_id


def _method_id(
    call: Call, given: str | None, customer: str, param: str = "default_payment_method"
) -> str:
    """The method that is given, or the newest card that the customer has. Raises ApiError, NotFound."""
    if given is not None and card_in_test_mode(call, given) is not None:
        return given
    reader = Reader(call.services, call.tenant)
    if given is None:
        theirs = {"customer_id": customer, "type": CARD}
        newest, _ = reader.page(METHODS, Page(limit=1, filters=theirs))
        if not newest:
            message = f"{param} is required: the customer has no card."
            raise invalid("missing_param", message, param)
        found: str = newest[0]["id"]
        return found
    if reader.record(METHODS, Prefix.PAYMENT_METHOD, given, param)["customer_id"] != customer:
        raise invalid("invalid_param", "Attach the payment method to the customer first.", param)
    return given


def _subscription(call: Call, public_id: str) -> Subscription:
    uuid = uuid_of(Prefix.SUBSCRIPTION, public_id)
    return call.services.billing.subscription(uuid, call.tenant)


def _told(call: Call, subscription: Subscription, ending: Ending | None = None) -> Settled:
    ending = ending or Ending()
    body = billing_objects.subscription(SUBSCRIPTIONS.fold(subscription.history))
    reader = Reader(call.services, call.tenant)
    newer = [
        billing_objects.invoice(INVOICES.fold(each.history))  # type: ignore[attr-defined]
        for each in ending.changed
        if each.TOPIC == INVOICE  # type: ignore[attr-defined]
    ]
    answer = json_answer(200, expanded(body, call.expand, reader, newer))
    return recorded(call, (subscription, *ending.changed), answer.stored(), ending.records)


# --- what the bank's answers make of them -------------------------------------------------------


def settled(services: Services, history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
    """The final answer to what asked for the first payment of a subscription, or for an invoice's."""
    reader, receipt = Reader(services, call.tenant), receipts_model.fold(history)
    payment = replayed(None, history)
    assert payment is not None
    due = services.billing.after(payment)
    assert due is not None, "it is an invoice's, and has its outcome"
    known = {receipt["payment_id"]: receipt}
    intent = reader.intent(encode(Prefix.INTENT, intent_of(due.invoice.id)), known=known)
    answer = _settled(reader, due, receipt, intent, call, history)
    return answer.stored()


def _settled(  # noqa: PLR0917 - all that an answer is made of
    reader: Reader,
    due: Due,
    receipt: Document,
    intent: Document,
    call: BankCall,
    history: Sequence[Payment.Event],
) -> Answer:
    subscription, invoice = _objects(due)
    newer = [subscription, invoice, intent, *reader.charges([receipt])]
    if call.audience.family == CREATED:
        body = dict(subscription)
        return json_answer(201, expanded(body, call.audience.expand, reader, newer))
    error = declined_error(receipt, intent, call, history)
    if error is not None:
        return error_answer(error, call.audience.dialect, call.cause.request_id)
    return json_answer(200, expanded(dict(invoice), call.audience.expand, reader, newer))


def _objects(due: Due) -> tuple[Document, Document]:
    return (
        billing_objects.subscription(SUBSCRIPTIONS.fold(due.subscription.history)),
        billing_objects.invoice(INVOICES.fold(due.invoice.history)),
    )


def pending(call: Call, history: Sequence[Payment.Event]) -> Answer:
    """Not known in time: the subscription is there, and its invoice is open."""
    first = history[0]
    assert isinstance(first, Payment.AuthorizationRequested)
    assert first.intent_id is not None
    reader = Reader(call.services, call.tenant)
    invoice_id = _invoice_id(first.intent_id)
    invoice = reader.invoice(invoice_id)
    is_invoices = call.path.startswith("/v1/invoices/")
    body = invoice if is_invoices else reader.subscription(invoice["subscription"])
    where = f"/v1/{'invoices' if is_invoices else 'subscriptions'}/{body['id']}"
    headers = {"Location": where, "Retry-After": str(RETRY_AFTER_PENDING_SECONDS)}
    return json_answer(202, expanded(body, call.expand, reader), headers)


def _invoice_id(intent_id: str) -> str:
    found = invoice_of(decode(Prefix.INTENT, intent_id))
    assert found is not None, "the payment is an invoice's"
    return encode(Prefix.INVOICE, found)


# --- queries ------------------------------------------------------------------------------------


def get(call: Call, query: ExpandQuery, *, subscription_id: str) -> Answer:
    """One subscription."""
    reader = Reader(call.services, call.tenant)
    found = reader.subscription(subscription_id)
    return json_answer(200, expanded(found, query.expand, reader))


def list_subscriptions(call: Call, query: SubscriptionsQuery) -> Answer:
    """Subscriptions, newest first."""
    reader = Reader(call.services, call.tenant)
    if query.customer is not None:
        reader.record(CUSTOMERS, Prefix.CUSTOMER, query.customer, "customer")
    if query.test_clock is not None:
        clock_id = uuid_of(Prefix.TEST_CLOCK, query.test_clock, "test_clock")
        if call.services.test_clocks.find(clock_id, call.tenant) is None:
            raise missing(Prefix.TEST_CLOCK, "test_clock")

    def cursor(text: str, param: str) -> UUID:
        reader.record(SUBSCRIPTIONS, Prefix.SUBSCRIPTION, text, param)
        return uuid_of(Prefix.SUBSCRIPTION, text, param)

    wanted = {
        "customer_id": query.customer,
        "status": query.wanted(),
        "clock_id": query.test_clock,
    }
    page = asked_page(query, wanted, cursor)
    records, has_more = reader.page(SUBSCRIPTIONS, page)
    body = told_page(
        [billing_objects.subscription(record) for record in records],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


def get_invoice(call: Call, query: ExpandQuery, *, invoice_id: str) -> Answer:
    """One invoice."""
    reader = Reader(call.services, call.tenant)
    return json_answer(200, expanded(reader.invoice(invoice_id), query.expand, reader))


def list_invoices(call: Call, query: InvoicesQuery) -> Answer:
    """Invoices, newest first."""
    reader = Reader(call.services, call.tenant)
    if query.customer is not None:
        reader.record(CUSTOMERS, Prefix.CUSTOMER, query.customer, "customer")
    if query.subscription is not None:
        reader.record(SUBSCRIPTIONS, Prefix.SUBSCRIPTION, query.subscription, "subscription")

    def cursor(text: str, param: str) -> UUID:
        reader.record(INVOICES, Prefix.INVOICE, text, param)
        return uuid_of(Prefix.INVOICE, text, param)

    wanted = {
        "customer_id": query.customer,
        "subscription": query.subscription,
        "status": query.status,
    }
    page = asked_page(query, wanted, cursor)
    records, has_more = reader.page(INVOICES, page)
    body = told_page(
        [billing_objects.invoice(record) for record in records],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


ONE: Final = "/v1/subscriptions/<subscription_id>"
ONE_INVOICE: Final = "/v1/invoices/<invoice_id>"


_route = routes_of(FAMILY, reads=Scope.PAYMENTS_READ, writes=Scope.PAYMENTS_WRITE)
ROUTES: Final = (
    _route(
        "POST",
        "/v1/subscriptions",
        create,
        "Have a customer subscribe, and pay the first period",
        name="create_subscription",
        body=SubscriptionInput,
        pending=pending,
        answers={201: SubscriptionOut, 202: SubscriptionOut},
    ),
    _route(
        "GET",
        "/v1/subscriptions",
        list_subscriptions,
        "List subscriptions, newest first",
        query=SubscriptionsQuery,
        answers={200: SubscriptionList},
    ),
    _route(
        "GET",
        ONE,
        get,
        "A subscription",
        name="get_subscription",
        query=ExpandQuery,
        answers={200: SubscriptionOut},
    ),
    _route(
        "POST",
        ONE,
        update,
        "Change a subscription, or have it end with its period",
        name="update_subscription",
        body=SubscriptionChange,
        answers={200: SubscriptionOut},
    ),
    _route(
        "DELETE",
        ONE,
        cancel,
        "End a subscription now",
        name="cancel_subscription",
        body=CancelSubscriptionInput,
        answers={200: SubscriptionOut},
    ),
    _route(
        "GET",
        "/v1/invoices",
        list_invoices,
        "List invoices, newest first",
        query=InvoicesQuery,
        answers={200: InvoiceList},
    ),
    _route(
        "GET",
        ONE_INVOICE,
        get_invoice,
        "An invoice",
        query=ExpandQuery,
        answers={200: InvoiceOut},
    ),
    _route(
        "POST",
        f"{ONE_INVOICE}/pay",
        pay,
        "Pay an open invoice now",
        name="pay_invoice",
        body=PayInvoiceInput,
        pending=pending,
        answers={200: InvoiceOut, 202: InvoiceOut},
    ),
)
