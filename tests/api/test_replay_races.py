"""A replay tells of its own operation, whatever happens to the payment while it looks."""

from collections.abc import Callable
from dataclasses import replace

from api.app import create_app
from api.schemas import ReceiptOut
from domain.commands import Tenant
from infrastructure.database import Pool
from infrastructure.idempotency import Claimed, IdempotencyKeys
from tests.api.an_api import THREADS, Api, Caller, fresh, json_of, shaped
from tests.fakes import FakeBank, Misfortune

FAILURES = [Misfortune.FAILS] * 4


class SlowKeys(IdempotencyKeys):
    """Between the first look and whatever its caller does next, things happen."""

    def __init__(self, pool: Pool, meanwhile: Callable[[], object]) -> None:
        super().__init__(pool)
        self._meanwhile: Callable[[], object] | None = meanwhile

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        found = super().find(tenant, key)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


def through_slow_keys(api: Api, merchant: Caller, meanwhile: Callable[[], object]) -> Caller:
    keys = SlowKeys(api.services.pool, meanwhile)
    app = create_app(replace(api.services, idempotency_keys=keys), threads=THREADS)
    return Caller(app, merchant.key, merchant.record, merchant.merchant)


def test_a_replay_is_not_told_of_the_operation_that_came_after_its_own(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    fields, key = {"payment_id": merchant.authorized()["payment_id"]}, fresh("key")
    bank.will_suffer(*FAILURES)
    shaped(ReceiptOut, merchant.post("/v1/captures", fields, key=key), 202)

    def captured_and_refund_begun() -> None:
        api.worker_has_been_at_it(merchant)
        bank.will_suffer(*FAILURES)
        assert merchant.refund(fields["payment_id"]).status_code == 202

    slowly = through_slow_keys(api, merchant, captured_and_refund_begun)

    response = slowly.post("/v1/captures", fields, key=key)

    assert shaped(ReceiptOut, response, 201)["status"] == "captured"
    assert response.data == merchant.post("/v1/captures", fields, key=key).data


def test_a_replay_that_is_overtaken_by_its_own_outcome_tells_it(
    api: Api, merchant: Caller, bank: FakeBank
) -> None:
    fields, key = {"payment_id": merchant.authorized()["payment_id"]}, fresh("key")
    bank.will_suffer(*FAILURES)
    shaped(ReceiptOut, merchant.post("/v1/voids", fields, key=key), 202)
    slowly = through_slow_keys(api, merchant, lambda: api.worker_has_been_at_it(merchant))

    response = slowly.post("/v1/voids", fields, key=key)

    assert json_of(response)["status"] == "voided"
    assert response.status_code == 201
