"""Clocks that tests move: made, advanced, looked at and done away with, in test mode only."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from api.errors import invalid
from api.http import Answer, Call, json_answer, routes_of
from api.lists import asked_page, told_page
from api.payments import billing_objects, objects
from api.payments.billing_inputs import AdvanceInput, ClockInput, ClocksQuery
from api.payments.inputs import ExpandQuery, NothingInput, missing, uuid_of
from api.payments.schemas import TestClockList, TestClockOut
from api.payments.subscriptions import cancel_all_of
from api.stripe_dialect import tells_what_was_deleted
from domain.commands import Mode
from domain.ids import Prefix, encode
from domain.ledger import Settled
from domain.records import ClaimKey, StoredAnswer, claimed_by
from infrastructure.api_keys import Scope
from infrastructure.test_clocks import TestClock

FAMILY: Final = "payments"
# What may fall due in one go is bounded by it.
FURTHEST: Final = timedelta(days=2 * 366)


def create(call: Call, body: ClockInput) -> Settled:
    """A clock that stands still at a moment."""
    _refuse_live(call)
    services, at = call.services, datetime.fromtimestamp(body.frozen_time, UTC)
    clock = TestClock(
        id=services.ids.new(),
        tenant=call.tenant,
        name=body.name,
        frozen_time=at,
        target_time=at,
        is_ready=True,
        created_at=services.clock.now(),
    )
    services.test_clocks.create(clock, lambda made: _claims(call, made, _told(made, status=201)))
    return Settled(answer=_told(clock, status=201), history=())


def advance(call: Call, body: AdvanceInput, *, clock_id: str) -> Settled:
    """It goes forwards, and a worker does what falls due on the way."""
    _refuse_live(call)
    clock = _asked(call, clock_id)
    to = datetime.fromtimestamp(body.frozen_time, UTC)
    if not clock.is_ready:
        raise invalid("test_clock_advancing", "The clock is on its way already.", status=409)
    if to <= clock.frozen_time:
        raise invalid("invalid_param", "A clock goes forwards only.", "frozen_time")
    if to - clock.frozen_time > FURTHEST:
        raise invalid("invalid_param", "A clock goes two years at once at most.", "frozen_time")
    sent = call.services.test_clocks.advance(
        clock.id, to, lambda now: _claims(call, now, _told(now, status=200))
    )
    if sent is None:
        raise invalid("test_clock_advancing", "The clock is on its way already.", status=409)
    return Settled(answer=_told(sent, status=200), history=())


def delete(call: Call, _body: NothingInput, *, clock_id: str) -> Settled:
    """It is there no more, and what its customers subscribed to ends."""
    _refuse_live(call)
    clock = _asked(call, clock_id)
    if not clock.is_ready:
        raise invalid("test_clock_advancing", "The clock is on its way.", status=409)
    for customer_id in call.services.test_clocks.customers(clock.id):
        cancel_all_of(call, customer_id)
    answer = Answer(status=204, body=b"").stored()
    if tells_what_was_deleted(call.dialect):
        gone = objects.deleted("test_helpers.test_clock", clock_id)
        answer = json_answer(200, gone).stored()
    if not call.services.test_clocks.delete(clock, lambda was: _claims(call, was, answer)):
        raise invalid("test_clock_advancing", "The clock is on its way.", status=409)
    return Settled(answer=answer, history=())


def get(call: Call, _query: ExpandQuery, *, clock_id: str) -> Answer:
    """One clock."""
    return json_answer(200, billing_objects.test_clock(_asked(call, clock_id), clock_id))


def list_clocks(call: Call, query: ClocksQuery) -> Answer:
    """Clocks, newest first."""

    def cursor(text: str, param: str) -> UUID:
        return _asked(call, text, param).id

    page = asked_page(query, {}, cursor)
    clocks, has_more = call.services.test_clocks.page(call.tenant, page)
    body = told_page(
        [billing_objects.test_clock(each, encode(Prefix.TEST_CLOCK, each.id)) for each in clocks],
        has_more=has_more,
        page=page,
        url=call.path,
    )
    return json_answer(200, body)


def clock_of(call: Call, public_id: str, param: str) -> TestClock:
    """The clock that somebody is to live by. Raises ApiError, TestClockNotFound."""
    _refuse_live(call, param)
    return _asked(call, public_id, param)


def _asked(call: Call, public_id: str, param: str | None = None) -> TestClock:
    uuid = uuid_of(Prefix.TEST_CLOCK, public_id, param)
    found = call.services.test_clocks.find(uuid, call.tenant)
    if found is None:
        raise missing(Prefix.TEST_CLOCK, param)
    return found


def _refuse_live(call: Call, param: str | None = None) -> None:
    if call.tenant.mode is not Mode.TEST:
        raise invalid("test_mode_only", "There are clocks to be moved in test mode only.", param)


def _told(clock: TestClock, *, status: int) -> StoredAnswer:
    body = billing_objects.test_clock(clock, encode(Prefix.TEST_CLOCK, clock.id))
    return json_answer(status, body).stored()


def _claims(call: Call, clock: TestClock, answer: StoredAnswer) -> Sequence[ClaimKey]:
    return claimed_by(call.claim, call.cause, clock.id, answer)


ALL: Final = "/v1/test_helpers/test_clocks"
ONE: Final = f"{ALL}/<clock_id>"


_route = routes_of(FAMILY, reads=Scope.PAYMENTS_READ, writes=Scope.PAYMENTS_WRITE)
ROUTES: Final = (
    _route(
        "POST",
        ALL,
        create,
        "Make a clock that tests move",
        name="create_test_clock",
        body=ClockInput,
        answers={201: TestClockOut},
    ),
    _route(
        "GET",
        ALL,
        list_clocks,
        "List clocks, newest first",
        name="list_test_clocks",
        query=ClocksQuery,
        answers={200: TestClockList},
    ),
    _route(
        "GET",
        ONE,
        get,
        "A clock",
        name="get_test_clock",
        query=ExpandQuery,
        answers={200: TestClockOut},
    ),
    _route(
        "DELETE",
        ONE,
        delete,
        "Do away with a clock",
        name="delete_test_clock",
        body=NothingInput,
        answers={},
    ),
    _route(
        "POST",
        f"{ONE}/advance",
        advance,
        "Move a clock forwards",
        name="advance_test_clock",
        body=AdvanceInput,
        answers={200: TestClockOut},
    ),
)
