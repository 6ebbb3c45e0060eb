"""Events: what merchants are told of, with the thing as it stood then, by a replay up to that moment.

Who people are is not in the log: it is told as it is known now, and not at all once it was erased.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from api.http import API_VERSION, Answer, Call, Route, json_answer
from api.lists import asked_page, told_page
from api.payments import billing_objects, objects
from api.payments.expand import expanded
from api.payments.inputs import EventsQuery, ExpandQuery, missing, uuid_of
from api.payments.reading import CUSTOMERS, INTENTS, INVOICES, METHODS, SUBSCRIPTIONS, Reader
from api.payments.schemas import EventList, EventOut
from domain.commands import Mode, Tenant
from domain.ids import Prefix, decode, encode
from domain.payment import Begun, Payment
from domain.payment_intent import PaymentIntent
from infrastructure import histories, personal_data
from infrastructure.api_keys import Scope
from infrastructure.histories import Logged, as_of
from infrastructure.projections.reading import wait_until_current
from infrastructure.services import Services
from projections import disputes, receipts, refunds
from projections.api_events import ApiEvents
from projections.webhook_deliveries import WebhookDeliveries

FAMILY: Final = "payments"
EVENTS: Final = ApiEvents()
DELIVERIES: Final = WebhookDeliveries()

# What tells of a customer itself.
OF_CUSTOMERS: Final = frozenset({"customer.created", "customer.updated", "customer.deleted"})

Document = dict[str, Any]
Histories = Mapping[UUID, Sequence[Logged]]


def get_event(call: Call, query: ExpandQuery, *, event_id: str) -> Answer:
    """One event."""
    uuid = uuid_of(Prefix.EVENT, event_id)
    wait_for_events(call)
    body = told(call.services, call.tenant, [event_row(call, uuid)])[0]
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def list_events(call: Call, query: EventsQuery) -> Answer:
    """Events, newest first."""
    wait_for_events(call)

    def cursor(text: str, param: str) -> UUID:
        uuid = uuid_of(Prefix.EVENT, text, param)
        event_row(call, uuid, param)
        return uuid

    page = asked_page(query, {"types": query.wanted()}, cursor)
    with call.services.pool.connection() as connection:
        rows, has_more = EVENTS.page(connection, call.tenant, page)
    body = told_page(
        told(call.services, call.tenant, rows),
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, Reader(call.services, call.tenant)))


def wait_for_events(call: Call) -> None:
    """And for what is delivered of them: all that the caller was answered before. Raises ModelBehind."""
    tenant = call.tenant
    for name in (EVENTS.name, DELIVERIES.name):
        wait_until_current(
            call.services.pool, name, merchant_id=tenant.merchant_id, mode=tenant.mode.value
        )


def event_row(call: Call, event_id: UUID, param: str | None = None) -> Document:
    """The row of a published event. Raises EventNotFound."""
    with call.services.pool.connection() as connection:
        row = EVENTS.by_id(connection, call.tenant, event_id)
    if row is None:
        raise missing(Prefix.EVENT, param)
    return row


# --- what it looked like then -------------------------------------------------------------------


def told(services: Services, tenant: Tenant, rows: Sequence[Mapping[str, Any]]) -> list[Document]:
    """The events of these rows, with what each is about: read at once for all of them."""
    known: dict[UUID, Sequence[Logged]] = {}
    wanted = {row["aggregate_id"] for row in rows}
    of_customers = [row for row in rows if row["type"] in OF_CUSTOMERS]
    with services.pool.connection() as connection:
        for _ in range(3):  # a payment, its intent, the intent's other payments
            known |= histories.histories(connection, wanted)
            wanted = {each for row in rows for each in _beside(row, known)} - set(known)
        personal = personal_data.of(connection, list(known))
        pending = DELIVERIES.pending(connection, rows)
    reader = Reader(services, tenant)
    clocks = reader.clocks([encode(Prefix.CUSTOMER, row["aggregate_id"]) for row in of_customers])
    shown = _Then(reader, known, personal, clocks)
    return [_event(row, tenant.mode, shown, pending.get(row["id"], 0)) for row in rows]


def _beside(row: Mapping[str, Any], known: Histories) -> list[UUID]:
    """What else the thing is told from: a payment's intent, and an intent's payments."""
    if not row["type"].startswith("payment_intent."):
        return []
    intent_id = _intent_id(known[row["aggregate_id"]][0].event)
    if intent_id not in known:
        return [intent_id]
    events = [each.event for each in known[intent_id]]
    return [UUID(e.payment_id) for e in events if isinstance(e, PaymentIntent.AttemptBegun)]


def _intent_id(first: Payment.Event | PaymentIntent.Event) -> UUID:
    """Of the intent that this is the first event of, or of an attempt of."""
    if isinstance(first, Begun):
        assert first.intent_id is not None, "the event of an intent is of one"
        return decode(Prefix.INTENT, first.intent_id)
    found: UUID = first.originator_id
    return found


class _Then:
    """Things as they were at an event, from the histories of all that it takes."""

    def __init__(
        self,
        reader: Reader,
        known: Histories,
        personal: Mapping[UUID, Document],
        clocks: Mapping[str, str],
    ) -> None:
        self._reader, self._known, self._personal = reader, known, personal
        self._clocks = clocks

    def thing(self, row: Mapping[str, Any], *, before: bool = False) -> Document:
        """What the event of `row` is about, as it stood then; or `before` it."""
        whole = self._known[row["aggregate_id"]]
        logged = whole[: row["version"] - (1 if before else 0)]
        history = [each.event for each in logged]
        personal = self._personal.get(row["aggregate_id"], {})
        if row["type"].startswith("customer.subscription."):
            told = history if before else as_of(whole, logged[-1])
            return billing_objects.subscription(SUBSCRIPTIONS.fold(told))
        match row["type"].partition(".")[0]:
            case "invoice":
                return billing_objects.invoice(INVOICES.fold(history))
            case "payment_intent":
                return self._intent(history, logged[-1])
            case "payment_method":
                return objects.payment_method(METHODS.fold(history), personal)
            case "customer":
                record = CUSTOMERS.fold(history)
                return objects.customer(record, personal, self._clocks.get(record["id"]))
            case _:
                return self._of_payment(row["type"], history, whole[row["version"] - 1].event)

    def _of_payment(self, kind: str, history: Sequence[Any], event: Any) -> Document:
        """What is told of by a payment's own history: it, a refund or a dispute of it."""
        if kind.startswith("refund."):
            found = {each["id"]: each for each in refunds.fold(history)}
            return objects.refund(found[event.refund_id])
        if kind.startswith("charge.dispute."):
            return self._dispute(history, event.dispute_id)
        if kind.startswith("charge."):
            return self._reader.charges([receipts.fold(history)])[0]
        return objects.payment(receipts.fold(history))

    def _dispute(self, history: Sequence[Any], dispute_id: str) -> Document:
        """A dispute, with what was said on it as it is known now."""
        found = {each["id"]: each for each in disputes.fold(history)}
        return self._reader.disputes([found[dispute_id]])[0]

    def _intent(self, history: Sequence[Any], moment: Logged) -> Document:
        """An intent, told of by its own history or by that of a payment that it made."""
        intent_id = _intent_id(history[0])
        if isinstance(history[0], Payment.Event):
            history = as_of(self._known[intent_id], moment)
        record = INTENTS.fold(history)
        last = record["last_payment"]
        receipt = None if last is None else receipts.fold(as_of(self._known[UUID(last)], moment))
        return self._reader.intent_of(record, receipt, self._personal.get(intent_id, {}))


def _event(row: Mapping[str, Any], mode: Mode, shown: _Then, pending: int) -> Document:
    thing = shown.thing(row)
    previous = None
    if row["type"].endswith(".updated"):
        before = shown.thing(row, before=True)
        previous = {
            name: value
            for name, value in before.items()
            if value != thing[name] and name != "updated"
        }
    return {
        "id": encode(Prefix.EVENT, row["id"]),
        "object": "event",
        "api_version": API_VERSION,
        "created": int(row["created_at"].timestamp()),
        "data": {"object": thing, "previous_attributes": previous},
        "livemode": mode is Mode.LIVE,
        "pending_webhooks": pending,
        "request": {"id": row["request_id"], "idempotency_key": row["idempotency_key"]},
        "type": row["type"],
    }


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/events",
        handler=list_events,
        query=EventsQuery,
        scope=Scope.PAYMENTS_READ,
        or_scopes=(Scope.WEBHOOKS_READ,),
        summary="List events, newest first",
        family=FAMILY,
        answers={200: EventList},
    ),
    Route(
        method="GET",
        path="/v1/events/<event_id>",
        handler=get_event,
        query=ExpandQuery,
        scope=Scope.PAYMENTS_READ,
        or_scopes=(Scope.WEBHOOKS_READ,),
        summary="An event, with what it is about as that stood then",
        family=FAMILY,
        answers={200: EventOut},
    ),
)
