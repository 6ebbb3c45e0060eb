"""Published events are the same, ids and all, whoever makes their table and whenever."""

from typing import Any

from infrastructure.projections.differences import differences
from projections.api_events import NAME
from tests.api.an_api import an_api
from tests.api.conftest import NOWHERE
from tests.api.test_events import EVENTS, told
from tests.api.test_intents import INTENTS, a_method, an_intent, answered
from tests.fakes import FakeBank
from tests.infrastructure.projections.a_log import rebuilt


def test_a_rebuild_makes_the_same_events_of_all_kinds(database_url: str, bank: FakeBank) -> None:
    with an_api(database_url, BANK_URL=NOWHERE) as api, api.asking(bank):
        merchant = api.merchant()
        merchant.refunded()
        customer = answered(merchant.post("/v1/customers", {"name": "Ada"}), 201)["id"]
        attach = f"/v1/payment_methods/{a_method(merchant)}/attach"
        answered(merchant.post(attach, {"customer": customer}), 200)
        for fields in ({}, {"payment_method": a_method(merchant), "confirm": True}):
            held: dict[str, Any] = {"capture_method": "manual", **fields}
            intent = answered(merchant.post(INTENTS, an_intent(**held)), 201)["id"]
            answered(merchant.post(f"{INTENTS}/{intent}/cancel", {}), 200)
        before = told(merchant)

        built = rebuilt(database_url, NAME)

        assert (built.quarantined, merchant.get(EVENTS).status_code) == (0, 200)
        assert list(differences(database_url, NAME)) == []
        assert told(merchant) == before
        assert {each["type"].partition(".")[0] for each in before} == {
            "charge",
            "customer",
            "payment",
            "payment_intent",
            "payment_method",
            "refund",
        }
