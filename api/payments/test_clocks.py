"""Clocks that tests move: made, advanced, looked at and done away with, in test mode only."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
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
from infrastructure.api_keys import Scope
from infrastructure.test_clocks import TestClock

FAMILY: Final = "payments"
# What may fall due in one go is bounded by it.
FURTHEST: Final = timedelta(days=2 * 366)


def create(call: Call, body: ClockInput) -> Settled:
    """A clock that stands still at a moment."""
    _refuse_live(call)
    services, clock_id = call.services, call.services.ids.new()
    at = datetime.fromtimestamp(body.frozen_time, UTC)
    services.test_clocks.create(clock_id, call.tenant, body.name, at)
    return _told(_asked(call, encode(Prefix.TEST_CLOCK, clock_id)), status=201)


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
    if not call.services.test_clocks.advance(clock.id, to):
        raise invalid("test_clock_advancing", "The clock is on its way already.", status=409)
    return _told(_asked(call, clock_id), status=200)


def delete(call: Call, _body: NothingInput, *, clock_id: str) -> Settled:
    """It is there no more, and what its customers subscribed to ends."""
    _refuse_live(call)
    clock = _asked(call, clock_id)
    if not clock.is_ready:
        raise invalid("test_clock_advancing", "The clock is on its way.", status=409)
    for customer_id in call.services.test_clocks.customers(clock.id):
        cancel_all_of(call, customer_id)
    call.services.test_clocks.delete(clock.id)
    if not tells_what_was_deleted(call.dialect):
        return Settled(answer=Answer(status=204, body=b"").stored(), history=())
    body = objects.deleted("test_helpers.test_clock", clock_id)
    return Settled(answer=json_answer(200, body).stored(), history=())


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


def _told(clock: TestClock, *, status: int) -> Settled:
    body = billing_objects.test_clock(clock, encode(Prefix.TEST_CLOCK, clock.id))
    return Settled(answer=json_answer(status, body).stored(), history=())


ALL: Final = "/v1/test_helpers/test_clocks"
ONE: Final = f"{ALL}/<clock_id>"


def _route(method: str, path: str, handler: Any, summary: str, **more: Any) -> Route:
    scope = Scope.PAYMENTS_READ if method == "GET" else Scope.PAYMENTS_WRITE
    return Route(
        method=method,
        path=path,
        handler=handler,
        summary=summary,
        scope=scope,
        family=FAMILY,
        **more,
    )


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
