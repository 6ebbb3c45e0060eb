"""What must hold: the cheap things about whatever a step touched, after every step; everything, once
all is quiet.

The claim, precisely. No customer is charged twice: at the bank there is at most one capture a payment,
at most one that was not given back an order, and no more is given back than was taken; always. More
than one hold cannot be ruled out with a bank that does what it was asked and forgets it: each hold that
the ledger does not know of is at a payment that says `possible_orphan_hold`, or is being asked for
still and may turn out to be it.
"""

import json
import re
import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from eventsourcing.persistence import StoredEvent

from api.http import Answer
from domain.bank import Operation
from domain.commands import Tenant
from domain.ids import Prefix, decode, encode
from domain.payment import LIVE, Payment, ReviewReason, Status
from domain.records import BankCall, BeginCall, EndCall, Record, StoredAnswer
from infrastructure.event_store import FlatJSON, FlatMapper
from projections import receipts, refunds
from tests.simulation.bank import Exchange, Hold, Taken
from tests.simulation.cards import CARD_PREFIX
from tests.simulation.scheduler import Host
from tests.simulation.weather import FAULTS

if TYPE_CHECKING:
    from tests.simulation.gateway import Asked
    from tests.simulation.world import World

NEXT: Final = {
    Status.PENDING: {Status.AUTHORIZED, Status.DECLINED},
    Status.AUTHORIZED: {Status.CAPTURED, Status.VOIDED, Status.EXPIRED},
    Status.CAPTURED: {Status.REFUNDED},
}
DISAGREEMENTS: Final = ("bank_lock_trouble_felt", "bank_mismatches")
FORGETTING: Final = (
    "bank_forgets",
    "bank_forgets_the_abandoned",
    "bank_answers_and_forgets",
    "bank_prunes_keys_early",
    "bank_restarts",
    # What cannot be looked up at the moment is as good as forgotten.
    "bank_database_down",
    "bank_reply_lost",
    "bank_request_lost",
    "bank_unreachable",
)
SILENCES: Final = tuple(
    name
    for name in FAULTS
    if name.startswith(("bank_", "process_", "store_")) and name != "bank_fails"
)
CAUSES: Final = {
    ReviewReason.BANK_DISAGREES: DISAGREEMENTS,
    ReviewReason.CAPTURE_ID_UNKNOWN: FORGETTING,
    ReviewReason.REFUND_ID_UNKNOWN: FORGETTING,
    ReviewReason.POSSIBLE_ORPHAN_HOLD: SILENCES,
}
RESOLVED_WITHIN_SECONDS: Final = 90.0
# Three or four digits are anywhere by chance; so the CVC is looked for by the name of its field.
FORBIDDEN_FIELDS: Final = re.compile(r'"(number|card_number|cvc|cvv|security_code)"\s*:')


class Violation(BaseException):
    """Something that must never be was. No code of ours may catch it, whatever else it catches."""


class Checks:
    """Told of everything that happens, and looks at all of it."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._mapper: FlatMapper = FlatMapper(FlatJSON())
        self._touched: dict[UUID, None] = {}
        self._logs: dict[UUID, tuple[StoredEvent, ...]] = {}
        self._payments: dict[UUID, Payment] = {}
        self._answers: dict[tuple[Tenant, str], StoredAnswer] = {}
        self._told: dict[tuple[Tenant, str], tuple[int, bytes]] = {}
        self._bodies: dict[tuple[Tenant, str], tuple[str, dict[str, Any]]] = {}
        self._bank_keys: set[str] = set()
        self._holders: dict[str, Host | None] = {}
        self.tenants: dict[UUID, Tenant] = {}
        self.doubtful_since: dict[str, float] = {}
        self.resolved: list[float] = []
        self.recovered: list[float] = []
        self.healed_at: float | None = None

    # --- what is told --------------------------------------------------------------------------

    def recorded(self, payment_id: UUID, beside: Sequence[Record]) -> None:
        """A transaction was committed."""
        self._touched[payment_id] = None
        now = self._world.scheduler.now
        for record in beside:
            if isinstance(record, BeginCall):
                self.doubtful_since[record.call.bank_key] = now
                self._bank_keys.add(record.call.bank_key)
                self._holders[record.call.bank_key] = self._world.scheduler.host()
                if payment_id not in self.tenants:
                    self.tenants[payment_id] = record.call.tenant
            if isinstance(record, EndCall):
                self._is_by_the_holder(record.call)
                began = self.doubtful_since.pop(record.call.bank_key)
                self.resolved.append(now - began)
                is_well = record.call.bank_key not in self._world.bank.wrong_for_ever
                if is_well and self.healed_at is not None and began < self.healed_at:
                    self.recovered.append(now - self.healed_at)

    def parked(self, call: BankCall) -> None:
        """A call was given up for now."""
        self._touched[call.payment_id] = None
        self._is_by_the_holder(call)

    def leased(self, call: BankCall) -> None:
        """A call was taken up."""
        self._holders[call.bank_key] = self._world.scheduler.host()

    def _is_by_the_holder(self, call: BankCall) -> None:
        """A process that lost the lease, because it was stopped for long, changes nothing."""
        holder, by = self._holders[call.bank_key], self._world.scheduler.host()
        if None not in (holder, by) and holder is not by:
            raise Violation(f"{call.bank_key} was changed by a process that had lost it")

    def booked(self, bank_key: str) -> None:
        """The bank did something."""
        self._touched[payment_of(bank_key)] = None

    def asked(self, exchange: Exchange, others: Sequence[Exchange]) -> None:
        """A request came to the bank, where `others` are at work under the same key."""
        if exchange.key not in self._bank_keys:
            raise Violation(f"{exchange.key} was written down nowhere before it went out")
        if exchange.is_astray or any(other.is_astray for other in others):
            if others:
                self._world.happened("overlap_that_no_sender_can_help")
        elif exchange.body and any(other.body for other in others):
            raise Violation(f"two calls under {exchange.key} overlap at the bank")

    def answered(self, asked: "Asked", answer: Answer) -> None:
        """A command was answered, whether or not anybody hears it."""
        self._leaks("an answer", answer.body.decode())
        name, told = (asked.tenant, asked.key), (answer.status, answer.body)
        about = asked.body.get("payment_id")
        if about is not None and self.tenants[decode(Prefix.PAYMENT, about)] != asked.tenant:
            raise Violation(f"{asked.tenant} was told of {about}, which is another's")
        if self._bodies.setdefault(name, (asked.path, asked.body)) != (asked.path, asked.body):
            raise Violation(f"{asked.key} was used for another request, which got the answer")
        if answer.status == 202:
            return
        before = self._told.setdefault(name, told)
        if before != told:
            raise Violation(f"two answers under {asked.key}: {before} and {told}")
        stored = self._world.store.tables.answers.get(name)
        if stored is None or (stored.status, stored.body) != told:
            raise Violation(f"the answer under {asked.key} is not the stored one")

    def read(self, payment_id: str, version: int, answer: Answer) -> None:
        """A receipt was read, which was asked for when the payment had `version`."""
        self._leaks("a receipt", answer.body.decode())
        if answer.status == 200 and json.loads(answer.body)["version"] < version:
            raise Violation(f"a receipt of {payment_id} tells of the past")

    def crashed(self, error: Exception) -> None:
        """Our code met what it did not expect."""
        text = "".join(traceback.format_exception(error))
        raise Violation(f"a bug: {text}") from error

    def logged(self, event: Mapping[str, Any]) -> None:
        """A line for the log."""
        self._leaks("the log", json.dumps(event, default=str))

    def version_of(self, payment_id: str) -> int:
        """How many events the payment has now."""
        return len(self._world.store.tables.events[decode(Prefix.PAYMENT, payment_id)])

    # --- after every step ----------------------------------------------------------------------

    def after_step(self) -> None:
        """Looks at what the step touched; nothing else can have changed."""
        if self._touched:
            touched, self._touched = self._touched, {}
            for payment_id in touched:
                if payment_id in self._world.store.tables.events:
                    self._look_at(payment_id)

    def _look_at(self, payment_id: UUID) -> None:
        self._the_log_only_grows(payment_id)
        payment = self._payments[payment_id]
        self._running_and_outstanding_agree(payment)
        self._the_receipt_is_the_fold(payment)
        self._the_slot_is_taken_while_live(payment)
        self._answers_never_change(payment)
        self._holds_are_known_or_flagged(payment)
        self._money_moves_once(payment)

    def _the_log_only_grows(self, payment_id: UUID) -> None:
        """Versions are gapless, and what was recorded stays as it was."""
        log = tuple(self._world.store.tables.events[payment_id])
        seen = self._logs.get(payment_id, ())
        if log[: len(seen)] != seen:
            raise Violation(f"history of {payment_id} was rewritten")
        if [event.originator_version for event in log] != list(range(1, len(log) + 1)):
            raise Violation(f"versions of {payment_id} have gaps")
        payment = self._payments.get(payment_id)
        for stored in log[len(seen) :]:
            self._leaks("an event", stored.state.decode())
            before = None if payment is None else payment.status
            event = self._mapper.to_domain_event(stored)
            payment = event.mutate(payment)
            assert payment is not None
            if before not in (None, payment.status) and payment.status not in NEXT.get(before, ()):
                raise Violation(f"{payment_id} went from {before} to {payment.status}")
        assert payment is not None
        self._logs[payment_id], self._payments[payment_id] = log, payment

    def _running_and_outstanding_agree(self, payment: Payment) -> None:
        """No payment is stuck unseen: whatever has no outcome is on the list of calls."""
        outstanding = self._world.store.tables.calls.get(payment.id)
        running = payment.running
        if (running is None) != (outstanding is None):
            raise Violation(f"{payment.id} runs {running}, and outstanding is {outstanding}")
        if outstanding is not None and outstanding.call.sealed_card is not None:
            if outstanding.call.operation != Operation.AUTHORIZATION:
                raise Violation(f"{payment.id} keeps a card that it needs no more")
            self._leaks("a sealed card", outstanding.call.sealed_card.decode())

    def _the_receipt_is_the_fold(self, payment: Payment) -> None:
        tables = self._world.store.tables
        receipt = tables.receipts.get(payment.id)
        if receipt != receipts.fold(payment.history):
            raise Violation(f"the receipt of {payment.id} is not what happened")
        if tables.refunds.get(payment.id) != refunds.fold(payment.history):
            raise Violation(f"the refunds of {payment.id} are not what happened")
        if (receipt["status"], receipt["amount_captured"], receipt["amount_refunded"]) != (
            payment.status,
            payment.captured_minor,
            payment.refunded_minor,
        ):
            raise Violation(f"the receipt of {payment.id} is not the payment's state")
        self._leaks("a receipt", json.dumps(receipt))

    def _the_slot_is_taken_while_live(self, payment: Payment) -> None:
        slots = self._world.store.tables.slots
        assert payment.order_id is not None
        name = (payment.tenant, payment.order_id)
        if payment.status in LIVE and slots.get(name) != payment.id:
            raise Violation(f"{payment.id} is live and {name} is {slots.get(name)}'s")
        if payment.status not in LIVE and slots.get(name) == payment.id:
            raise Violation(f"{payment.id} is over and keeps {name}")

    def _answers_never_change(self, payment: Payment) -> None:
        """Each key has one outcome."""
        tables = self._world.store.tables
        keys = {cause.idempotency_key: None for cause in tables.causes[payment.id]}
        for key in keys:
            if key is None:
                continue
            name = (payment.tenant, key)
            claim = tables.claims.get(name)
            if claim is None or claim.payment_id != payment.id:
                raise Violation(f"{payment.id} was changed under {key}, which is another's")
            answer = tables.answers.get(name)
            if self._answers.get(name) not in (None, answer):
                raise Violation(f"the answer under {key} changed")
            if answer is not None:
                self._answers[name] = answer
                self._leaks("a stored answer", answer.body.decode())

    def _holds_are_known_or_flagged(self, payment: Payment) -> None:
        holds = self.holds_of(payment)
        if payment.status is Status.PENDING:
            outstanding = self._world.store.tables.calls[payment.id]
            if len(holds) > outstanding.call.unanswered + outstanding.in_flight:
                raise Violation(f"{payment.id} has {len(holds)} holds, and too few silences")
            return
        unknown = [hold.id for hold in holds if hold.id != payment.authorization_id]
        if unknown and ReviewReason.POSSIBLE_ORPHAN_HOLD not in payment.reviews:
            raise Violation(f"{payment.id} does not say that {unknown} may be there")

    def _money_moves_once(self, payment: Payment) -> None:
        """At the bank, always, whatever we know."""
        taken = self.captures_of(payment)
        if len(taken) > 1:
            raise Violation(f"{payment.id} was captured {len(taken)} times")
        if sum(sum(each.given_back.values()) for each in taken) > sum(
            each.amount_minor for each in taken
        ):
            raise Violation(f"more of {payment.id} was given back than taken")
        tables = self._world.store.tables
        kept = [
            each.id
            for other in self._payments.values()
            if (other.tenant, other.order_id) == (payment.tenant, payment.order_id)
            for each in self.captures_of(other)
            if not each.given_back
        ]
        if len(kept) > 1:
            raise Violation(f"{payment.order_id} was charged twice: {kept}")
        assert payment.id in tables.events

    # --- once all is quiet ---------------------------------------------------------------------

    def when_quiet(self) -> None:
        """Everything, about everything."""
        tables = self._world.store.tables
        for payment_id in tables.events:
            self._look_at(payment_id)
        if tables.calls:
            raise Violation(f"never settled: {sorted(map(str, tables.calls))}")
        unanswered = set(tables.claims) - set(tables.answers)
        if unanswered:
            raise Violation(f"keys without an outcome: {unanswered}")
        for payment in self._payments.values():
            self._the_books_agree(payment)
            self._reviews_have_a_cause(payment)
        self._every_hold_is_explained()
        late = [seconds for seconds in self.recovered if seconds > RESOLVED_WITHIN_SECONDS]
        if late:
            raise Violation(f"resolved {late} s after the bank was well")

    def when_replayed(self) -> dict[tuple[Tenant, str], tuple[str, dict[str, Any]]]:
        """Every request that was answered, to be asked again."""
        return {name: asked for name, asked in self._bodies.items() if name in self._told}

    def none_is_past_its_time(self) -> None:
        """After a quiet week: no hold that we know of outlives its time."""
        for payment in self._payments.values():
            disagrees = ReviewReason.BANK_DISAGREES in payment.reviews
            if payment.status is Status.AUTHORIZED and not disagrees:
                raise Violation(f"{payment.id} is authorized though its hold ran out")

    def _the_books_agree(self, payment: Payment) -> None:
        """To the cent, but for what says that it disagrees."""
        if ReviewReason.BANK_DISAGREES in payment.reviews:
            return
        known = self._world.bank.books.holds.get(payment.authorization_id or "")
        ours = (payment.status, payment.captured_minor, payment.refunded_minor)
        if ours != as_booked(known, payment.status):
            raise Violation(f"{payment.id} is {ours}, and the bank has {as_booked(known, None)}")

    def _reviews_have_a_cause(self, payment: Payment) -> None:
        """Nobody is sent to look where nothing can be wrong."""
        for reason in payment.reviews:
            if not any(self._world.happenings[fault] for fault in CAUSES[reason]):
                raise Violation(f"{payment.id} needs a review, {reason}, for nothing")

    def _every_hold_is_explained(self) -> None:
        """Each live hold at the bank is an authorized payment's, or its payment's review says that it
        may be there."""
        payments = {encode(Prefix.PAYMENT, each.id): each for each in self._payments.values()}
        for payment_id, holds in self._world.bank.books.holds_by_payment.items():
            payment = payments.get(payment_id)
            if payment is None:
                raise Violation(f"holds of {payment_id}, and no such payment")
            for hold in holds:
                ours = payment.status is Status.AUTHORIZED and payment.authorization_id == hold.id
                known = payment.authorization_id == hold.id and payment.reviews
                flagged = ReviewReason.POSSIBLE_ORPHAN_HOLD in payment.reviews
                if hold.is_live and not (ours or known or flagged):
                    raise Violation(f"{hold.id} of {payment.id} is explained by nothing")

    def counts(self) -> dict[str, int]:
        """What there was, for the report."""
        unknown = [
            payment
            for payment in self._payments.values()
            if any(hold.id != payment.authorization_id for hold in self.holds_of(payment))
        ]
        found = {f"payments_{status.value}": 0 for status in Status}
        for payment in self._payments.values():
            found[f"payments_{payment.status.value}"] += 1
            for reason in payment.reviews:
                found[f"reviews_{reason.value}"] = found.get(f"reviews_{reason.value}", 0) + 1
        return found | {"payments": len(self._payments), "orphan_holds": len(unknown)}

    def holds_of(self, payment: Payment) -> list[Hold]:
        """At the bank, under the payment's own keys."""
        return self._world.bank.books.holds_of(encode(Prefix.PAYMENT, payment.id))

    def captures_of(self, payment: Payment) -> list[Taken]:
        """At the bank, of any of its holds."""
        return [taken for hold in self.holds_of(payment) for taken in hold.captures]

    # --- cards ---------------------------------------------------------------------------------

    def _leaks(self, where: str, text: str) -> None:
        """No number of a card, nor its CVC, is in what is stored or told."""
        if CARD_PREFIX in text:
            for card in self._world.merchants.cards:
                if card.number in text:
                    raise Violation(f"{where} has the number of a card: {text}")
        if found := FORBIDDEN_FIELDS.search(text):
            raise Violation(f"{where} has {found.group()}: {text}")


def payment_of(bank_key: str) -> UUID:
    """Whose key it is."""
    return decode(Prefix.PAYMENT, bank_key.partition("-")[0])


def as_booked(hold: Hold | None, status: Status | None) -> tuple[Status | None, int, int]:
    """What the bank's books say of a hold, in our words; `status` where they cannot tell."""
    if hold is None:
        return Status.DECLINED, 0, 0
    if hold.captures:
        (taken,) = hold.captures
        given_back = sum(taken.given_back.values())
        whole = given_back == taken.amount_minor
        return Status.REFUNDED if whole else Status.CAPTURED, taken.amount_minor, given_back
    if hold.is_void:
        return Status.EXPIRED if status is Status.EXPIRED else Status.VOIDED, 0, 0
    return Status.AUTHORIZED, 0, 0
