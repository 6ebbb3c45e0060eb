"""Charges: payments, of whatever family, in Stripe's vocabulary."""

from typing import Any, Final
from uuid import UUID

from api.http import Answer, Call, Route, json_answer
from api.lists import asked_page, told_page
from api.payments.expand import expanded
from api.payments.inputs import ChargesQuery, ExpandQuery, missing, uuid_of
from api.payments.reading import INTENTS, RECEIPTS, Reader
from api.payments.schemas import ChargeList, ChargeOut
from domain.ids import Prefix, decode
from infrastructure.api_keys import Scope

FAMILY: Final = "payments"


def get_charge(call: Call, query: ExpandQuery, *, charge_id: str) -> Answer:
    """One charge."""
    reader = Reader(call.services, call.tenant)
    return json_answer(200, expanded(reader.charge(charge_id), query.expand, reader))


def list_charges(call: Call, query: ChargesQuery) -> Answer:
    """Charges, newest first."""
    reader = Reader(call.services, call.tenant)
    wanted: dict[str, Any] = {"customer_id": query.customer}
    if query.payment_intent is not None:
        record = reader.record(INTENTS, Prefix.INTENT, query.payment_intent, "payment_intent")
        wanted["payment_ids"] = [decode(Prefix.PAYMENT, each) for each in record["attempts"]]

    def cursor(text: str, param: str) -> UUID:
        uuid = uuid_of(Prefix.CHARGE, text, param)
        if not reader.receipts([uuid]):
            raise missing(Prefix.CHARGE, param)
        return uuid

    page = asked_page(query, wanted, cursor)
    with call.services.pool.connection() as connection:
        receipts, has_more = RECEIPTS.page(connection, call.tenant, page)
    body = told_page(
        reader.charges(receipts),
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, expanded(body, query.expand, reader))


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/charges",
        handler=list_charges,
        query=ChargesQuery,
        scope=Scope.PAYMENTS_READ,
        summary="List charges, newest first",
        family=FAMILY,
        answers={200: ChargeList},
    ),
    Route(
        method="GET",
        path="/v1/charges/<charge_id>",
        handler=get_charge,
        query=ExpandQuery,
        scope=Scope.PAYMENTS_READ,
        summary="A charge",
        family=FAMILY,
        answers={200: ChargeOut},
    ),
)
