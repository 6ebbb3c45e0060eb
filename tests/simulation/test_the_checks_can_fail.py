"""Each of these worlds has one part broken on purpose, and the checks find it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from domain.bank import (
    ActionRequired,
    Answer,
    Approved,
    BankRequest,
    Declined,
    Operation,
    Outcome,
    UnderWay,
    Unknown,
)
from domain.commands import Tenant
from domain.ledger import Settled
from domain.payment import Payment
from domain.records import (
    AnswerKey,
    BankCall,
    BeginCall,
    ClaimKey,
    EndCall,
    FreeOrderSlot,
    Record,
    StoredAnswer,
    TakeOrderSlot,
)
from infrastructure.bank.client import NoReply, Reply
from infrastructure.bank.driver import BankDriver
from infrastructure.worker import Worker
from tests.fakes import PlainVault, Tables
from tests.simulation.gateway import Parts
from tests.simulation.store import SimulatedBankCalls, SimulatedLedger, SimulatedStore
from tests.simulation.weather import WELL, Weather
from tests.simulation.world import Size, World, WorldFailed

SEEDS = range(1, 9)
SMALL = Size(payments=10, seconds=20.0)

SILENCE = replace(WELL, bank_hangs=0.3, bank_hangs_up_after=0.1)
FORGETTING = replace(WELL, bank_forgets=0.3)
DYING = replace(WELL, process_dies=0.01)
STOPPING = replace(WELL, process_is_stopped=0.05, process_stalls=0.05)
DOUBTS = replace(WELL, store_acknowledgement_lost=0.2, store_commits_late=0.1)
DISAGREEING = replace(
    WELL, bank_mismatches=0.2, bank_fails=0.3, bank_lock_trouble=0.9, client_takes_a_new_key=0.5
)
REPEATING = replace(WELL, request_duplicated=0.5, client_races_itself=0.5, answer_lost=0.2)


class Impatient(BankDriver):
    """Asks again at once after silence."""

    def ask(self, request: BankRequest, body: dict[str, Any], *, seconds_left: float) -> Reply:
        try:
            return super().ask(request, body, seconds_left=min(seconds_left, 0.5))
        except NoReply:
            return super().ask(request, body, seconds_left=seconds_left)


class TakesSilenceForANo(BankDriver):
    """An unknown outcome is a decline to it."""

    def perform(self, request: BankRequest) -> Answer:
        answer = super().perform(request)
        return Declined(code="card_declined") if isinstance(answer, Unknown) else answer


class BelievesEverything(BankDriver):
    """Asks the bank nothing before it sends the request again, and believes every answer."""

    def perform(self, request: BankRequest) -> Answer:
        answer = super().perform(replace(request, ask_first=False))
        return replace(answer, replayed=True) if isinstance(answer, Approved) else answer


class ForgetsSilence(SimulatedLedger):
    """Settles as if every attempt had been answered."""

    def _end(self, payment: Payment, call: BankCall, answer: Outcome) -> Settled | BankCall:
        return super()._end(payment, replace(call, unanswered=0), answer)


class TellsEverybody(SimulatedLedger):
    """Shows any payment to anyone."""

    def payment(self, payment_id: UUID, tenant: Tenant, *, version: int | None = None) -> Payment:
        return super().payment(payment_id, self._world.checks.tenants[payment_id], version=version)


class NewKeyEachTime(SimulatedLedger):
    """Each attempt has a bank key of its own."""

    def _bank_request(self, payment: Payment, call: BankCall, *more: Any) -> BankRequest:
        request = super()._bank_request(payment, call, *more)
        return replace(request, key=f"{request.key}-{call.attempts}")


class Leaving(SimulatedStore):
    """Leaves some of what is to be written beside the events unwritten."""

    left_out: tuple[type[Record], ...] = ()

    def _write(self, draft: Tables, record: Record) -> None:
        if not isinstance(record, self.left_out):
            super()._write(draft, record)


class WithoutClaims(SimulatedStore):
    """Every key is free."""

    def _write(self, draft: Tables, record: Record) -> None:
        if isinstance(record, ClaimKey):
            draft.claims[record.claim.tenant, record.claim.key] = record
        else:
            super()._write(draft, record)


class WithoutSlots(SimulatedStore):
    """An order may have any number of payments."""

    def _write(self, draft: Tables, record: Record) -> None:
        if isinstance(record, TakeOrderSlot):
            draft.slots[record.tenant, record.order_id] = record.payment_id
        else:
            super()._write(draft, record)


class WithoutFence(SimulatedBankCalls):
    """Whoever lost the lease may give the call up all the same."""

    def park(self, call: BankCall, answer: Unknown | ActionRequired | UnderWay) -> None:
        outstanding = self._world.store.tables.calls.get(call.payment_id)
        fence = call.fence if outstanding is None else outstanding.call.fence
        super().park(replace(call, fence=fence), answer)


class ShortLeases(SimulatedStore):
    """A call is anybody's again after three seconds."""

    def _write(self, draft: Tables, record: Record) -> None:
        if isinstance(record, BeginCall):
            record = replace(record, lease_seconds=3.0)
        super()._write(draft, record)


class KeepsSlots(Leaving):
    left_out = (FreeOrderSlot,)


class KeepsNoAnswers(Leaving):
    left_out = (AnswerKey,)


class AnswersAnew(SimulatedStore):
    """The stored answer is rendered again, a little differently."""

    def _write(self, draft: Tables, record: Record) -> None:
        if isinstance(record, AnswerKey):
            body = record.answer.body + b"\n"
            record = replace(record, answer=replace(record.answer, body=body))
        super()._write(draft, record)


class LosesReceipts(SimulatedStore):
    """Some outcomes are not projected."""

    def record(self, stored_events: Any, cause: Any, history: Any, beside: Any) -> None:
        ends = any(isinstance(record, EndCall) for record in beside)
        super().record(stored_events, cause, () if ends else history, beside)


class BelievesAnyAmount(BankDriver):
    """Takes every 200 for an approval of what it asked."""

    def ask(self, request: BankRequest, body: dict[str, Any], *, seconds_left: float) -> Reply:
        reply = super().ask(request, body, seconds_left=seconds_left)
        if reply.status != 200 or reply.body is None:
            return reply
        asked = {"amount": request.money.amount_minor, "currency": request.money.currency}
        about = {"authorization_id": request.bank_id, "capture_id": request.bank_id}
        known = {} if request.operation is Operation.AUTHORIZATION else about
        if request.operation is Operation.CAPTURE:
            del known["capture_id"]
        return replace(reply, body=reply.body | asked | known)


class NeverSweeps(Worker):
    """Holds are kept for ever."""

    def release_expired(self, *_: Any) -> int:
        return 0


class NeverResumes(Worker):
    """What was begun is never finished."""

    def take_up(self, *_: Any) -> int:
        return 0


class Talkative:
    """Tells more in its answers than it should."""

    @staticmethod
    def settled(_history: Sequence[Payment.Event], _call: BankCall) -> StoredAnswer:
        return StoredAnswer(status=201, body=b'{"payment_id": "pay_1", "card": {"cvc": "123"}}')


class PlainText(PlainVault):
    """Keeps cards as they are."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        pass


BROKEN: dict[str, tuple[Parts, Weather, str]] = {
    "asks again at once": (Parts(driver=Impatient), SILENCE, "overlap"),
    "takes silence for a no": (Parts(driver=TakesSilenceForANo), SILENCE, ""),
    "believes everything": (Parts(driver=BelievesEverything), FORGETTING, "does not say"),
    "believes any amount": (Parts(driver=BelievesAnyAmount), DISAGREEING, ""),
    "forgets silence": (Parts(ledger=ForgetsSilence), FORGETTING, "does not say"),
    "tells everybody": (
        Parts(ledger=TellsEverybody),
        replace(WELL, client_is_nosy=1.0),
        "another's",
    ),
    "a key for each attempt": (Parts(ledger=NewKeyEachTime), SILENCE, ""),
    "no claims": (Parts(store=WithoutClaims), REPEATING, ""),
    "no slots": (Parts(store=WithoutSlots), REPEATING, "is live"),
    "no fence": (Parts(bank_calls=WithoutFence), STOPPING, "had lost it"),
    "short leases": (Parts(store=ShortLeases), SILENCE, ""),
    "keeps slots": (Parts(store=KeepsSlots), WELL, "is over and keeps"),
    "keeps no answers": (Parts(store=KeepsNoAnswers), WELL, "stored one"),
    "answers anew": (Parts(store=AnswersAnew), REPEATING, "stored one"),
    "loses receipts": (Parts(store=LosesReceipts), WELL, "is not what happened"),
    "never sweeps": (Parts(worker=NeverSweeps), WELL, "though its hold ran out"),
    "never resumes": (Parts(worker=NeverResumes), SILENCE, "not quiet"),
    "tells the CVC": (Parts(answers=Talkative), WELL, "cvc"),
    "keeps cards in plain text": (Parts(vault=PlainText), WELL, "number of a card"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_part_is_found(broken: str) -> None:
    parts, weather, said = BROKEN[broken]

    worlds = (World(seed, parts=parts, weather=weather, size=SMALL) for seed in SEEDS)
    found = next((what for world in worlds if (what := violation_in(world))), None)

    assert found is not None
    assert said in found


def violation_in(world: World) -> str | None:
    try:
        world.run()
    except WorldFailed as failed:
        return failed.violation
    return None


def test_a_violation_comes_with_what_happened_last_and_how_to_see_it_again() -> None:
    world = World(5, parts=Parts(store=KeepsSlots), weather=WELL, size=SMALL)

    with pytest.raises(WorldFailed) as failed:
        world.run()

    assert "payment.authorization_declined" in str(failed.value)
    assert str(failed.value).endswith("./scripts/soak --from 5 --seeds 1 --payments 10")


def test_nothing_is_found_where_nothing_is_broken() -> None:
    weathers: list[Weather] = [
        SILENCE,
        FORGETTING,
        DYING,
        STOPPING,
        DOUBTS,
        DISAGREEING,
        REPEATING,
    ]
    check: Callable[[Weather], Any] = lambda w: World(1, weather=w, size=SMALL).run()  # noqa: E731

    assert all(check(weather) for weather in weathers)
