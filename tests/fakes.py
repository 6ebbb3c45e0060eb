"""One fake for each port of the domain, as faithful as a test can lean on.

`tests/contracts` runs the same suites on these and on the real things.
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from itertools import count
from typing import Any, Final
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    InfrastructureFactory,
    Notification,
    NotSupportedError,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    TrackingRecorder,
)
from eventsourcing.utils import Environment

from domain.accounts import BankAccount, Means
from domain.bank import (
    ActionRequired,
    AlreadyDone,
    Answer,
    Approved,
    BankCapabilities,
    BankRequest,
    Contradicted,
    Declined,
    Operation,
    Rejected,
    UnderWay,
    Unknown,
)
from domain.bank_records import BankRecord, NoRecord, NotTold, Told
from domain.cards import Card
from domain.commands import Cause, Tenant
from domain.errors import (
    ConcurrentChange,
    KeyAlreadyClaimed,
    LeaseLost,
    OrderAlreadyPaid,
    TokenAlreadyUsed,
)
from domain.ledger import PaymentLedger
from domain.payment import REMARKS, Payment
from domain.records import (
    AnswerKey,
    AwaitShopper,
    AwaitTransfer,
    BankCall,
    BeginCall,
    ClaimKey,
    ContinueCall,
    EndCall,
    EraseLater,
    ForgetCard,
    ForgetPersonalData,
    FreeOrderSlot,
    KeepCard,
    KeepPersonalData,
    LiveByClock,
    Record,
    RespondToDispute,
    StoredAnswer,
    TakeOrderSlot,
    UseToken,
)
from infrastructure.bank_calls import awaiting_pause
from infrastructure.event_store import FlatJSON, FlatMapper
from infrastructure.idempotency import Claimed
from projections import receipts as receipts_model
from projections import refunds as refunds_model
from tests.builders import (
    CHALLENGED_VISA,
    EMPTY_MASTERCARD,
    EXPIRED_MASTERCARD,
    FULL_AMOUNTS,
    NOON,
    SMALL_VISA,
    VISA,
    an_id,
)

TRIES: Final = 4
HOLD_LASTS: Final = timedelta(days=7)
KEYS_LAST: Final = timedelta(hours=24)
SETTLES_AFTER: Final = timedelta(seconds=2)
FAILING_ACCOUNTS: Final = {"22222227": "insufficient_funds", "33333335": "debit_not_authorized"}
CHALLENGES_LAST: Final = timedelta(hours=23)
NOT_APPROVED: Final = "authentication_required"
WITHDRAWN: Final = "authorization_withdrawn"
SUCCESSES_IN_A_ROW: Final = 3
QUIET_SECONDS: Final = 20.0
LONGEST_PAUSE_SECONDS: Final = 30.0


class SteppableClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, at: datetime = NOON) -> None:
        self._at = at
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._at

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, seconds: float) -> None:
        self._at += timedelta(seconds=seconds)
        self._monotonic += seconds


class SequentialIds:
    """The same ids in every run, in the order of time."""

    def __init__(self, first: int = 1) -> None:
        self._numbers = count(first)

    def new(self) -> UUID:
        return an_id(next(self._numbers))


class PlainVault:
    """Hides nothing, but binds what it seals to the payment all the same."""

    def seal(self, means: Means, payment_id: UUID) -> bytes:
        return json.dumps([str(payment_id), asdict(means)]).encode()

    def unseal(self, sealed: bytes, payment_id: UUID) -> Means:
        owner, content = json.loads(sealed)
        assert owner == str(payment_id), "a sealed card belongs to another payment"
        return BankAccount(**content) if "sort_code" in content else Card(**content)


class PlainAnswers:
    """Answers with the name and the version of the event that settled the command."""

    def settled(self, history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
        outcome = next(e for e in reversed(history) if not isinstance(e, REMARKS))
        declined = isinstance(outcome, Payment.AuthorizationDeclined)
        body = {"operation": call.operation, "outcome": type(outcome).__name__}
        return StoredAnswer(
            status=402 if declined else 201,
            body=json.dumps(body | {"version": outcome.originator_version}).encode(),
            headers=(("Location", f"/v1/receipts/{call.payment_id}"),),
        )


# --- the bank ---------------------------------------------------------------------------------------


class Misfortune(Enum):
    """What befalls one attempt."""

    FAILS = "a 500 is received and nothing was done"
    SILENT_BEFORE = "no answer, and nothing was done"
    SILENT_AFTER = "no answer, though it was done and is remembered"
    FORGETS = "no answer, it was done, and the bank does not remember"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A card that the bank issued."""

    cvc: str
    expires: tuple[int, int]
    balance_minor: int


@dataclass(slots=True, kw_only=True)
class Hold:
    """Money set aside under a key: it ends by a capture or a void."""

    key: str
    card_number: str
    amount_minor: int
    expires_at: datetime
    currency: str = "USD"
    status: str = "approved"
    ended_by: str | None = None


@dataclass(slots=True, kw_only=True)
class Taken:
    """A capture, and what was given back of it."""

    amount_minor: int
    hold_id: str
    status: str = "captured"
    given_back: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Challenge:
    """A hold that waits for its shopper. `decision`: what became of it."""

    hold: Hold
    asked_at: datetime
    decision: Approved | Declined | None = None


@dataclass(slots=True, kw_only=True)
class Transfer:
    """Money from another bank, which is there or is not after a while."""

    bank_id: str
    account_number: str
    taken: Taken
    currency: str
    asked_at: datetime


class FakeBank:
    """The port `Bank`: a little bank with holds, or whatever `will_answer` scripts before it."""

    def __init__(
        self, clock: SteppableClock, capabilities: BankCapabilities = FULL_AMOUNTS
    ) -> None:
        self.capabilities = capabilities
        self.requests: list[BankRequest] = []
        self.holds: dict[str, Hold] = {}
        self.captures: dict[str, Taken] = {}
        self.challenges: dict[str, Challenge] = {}
        self.transfers: dict[str, Transfer] = {}  # by key: one under each
        self.done: Counter[str] = Counter()
        self.accounts = {
            VISA: Account(cvc="123", expires=(2030, 12), balance_minor=1_000_000),
            SMALL_VISA: Account(cvc="456", expires=(2030, 6), balance_minor=50_000),
            EMPTY_MASTERCARD: Account(cvc="789", expires=(2030, 9), balance_minor=0),
            EXPIRED_MASTERCARD: Account(cvc="321", expires=(2020, 3), balance_minor=500_000),
        }
        if capabilities.three_d_secure:
            self.accounts[CHALLENGED_VISA] = Account(
                cvc="123", expires=(2030, 12), balance_minor=1_000_000
            )
        self._clock = clock
        self._scripted: deque[Answer] = deque()
        self._misfortunes: deque[Misfortune] = deque()
        self._scripted_for: dict[Operation, Answer] = {}
        self._suffered_at: dict[Operation, Misfortune] = {}
        self._remembered: dict[
            tuple[Operation, str], tuple[Approved | ActionRequired | UnderWay, datetime]
        ] = {}
        self._successes_wanted = 0
        self.not_begun = 0
        self._numbers = count(1)

    def will_answer(self, *answers: Answer) -> None:
        """The next answers, whatever is asked; nothing is done for them."""
        self._scripted.extend(answers)

    def will_suffer(self, *misfortunes: Misfortune) -> None:
        """What befalls the next attempts, one each; declines and refusals use up silence too."""
        self._misfortunes.extend(misfortunes)

    def will_answer_to(self, operation: Operation, answer: Answer) -> None:
        """The next answer to that operation; nothing is done for it."""
        self._scripted_for[operation] = answer

    def will_suffer_at(self, operation: Operation, misfortune: Misfortune) -> None:
        """What befalls the next attempt of that operation."""
        self._suffered_at[operation] = misfortune

    def time_passes(self, seconds: float) -> None:
        """At the bank."""
        self._clock.advance(seconds)

    def has_recovered(self) -> None:
        """No more misfortunes."""
        self._misfortunes.clear()

    def goes_down(self) -> None:
        """It is known not to answer, until it has, a few times."""
        self._successes_wanted = SUCCESSES_IN_A_ROW

    def comes_back(self) -> None:
        """It is known to answer."""
        self._successes_wanted = 0

    def admits(self) -> bool:
        return self._successes_wanted == 0

    def was_not_begun(self) -> None:
        self.not_begun += 1

    def deposit(self, card_number: str, amount_minor: int) -> None:
        account = self.accounts[card_number]
        self.accounts[card_number] = replace(
            account, balance_minor=account.balance_minor + amount_minor
        )

    def holds_under(self, key: str) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.key == key]

    def captured_minor(self) -> int:
        return sum(taken.amount_minor for taken in self.captures.values())

    def refunded_minor(self) -> int:
        return sum(sum(taken.given_back.values()) for taken in self.captures.values())

    def perform(self, request: BankRequest) -> Answer:
        self.requests.append(request)
        answer = self._scripted_for.pop(request.operation, None)
        if answer is None:
            answer = self._scripted.popleft() if self._scripted else self._answer(request)
        if not isinstance(answer, Unknown):
            self._successes_wanted = max(0, self._successes_wanted - 1)
        return answer

    def shopper_decides(self, bank_id: str, *, approves: bool) -> None:
        """The shopper whom the authorization waits for comes to the bank's page; once."""
        challenge = self.challenges[bank_id]
        if self.decision(challenge) is not None:
            return
        account, hold = self.accounts[challenge.hold.card_number], challenge.hold
        if not approves:
            challenge.decision = Declined(code=NOT_APPROVED)
        elif account.balance_minor < hold.amount_minor:
            challenge.decision = Declined(code="insufficient_funds")
        else:
            self.deposit(hold.card_number, -hold.amount_minor)
            hold.expires_at = self._clock.now() + HOLD_LASTS
            self.holds[bank_id] = hold
            self.done[hold.key] += 1
            challenge.decision = Approved(bank_id=bank_id, expires_at=hold.expires_at)

    def decision(self, challenge: Challenge) -> Approved | Declined | None:
        """None while the shopper can still come."""
        if challenge.decision is None and challenge.asked_at + CHALLENGES_LAST <= self._clock.now():
            challenge.decision = Declined(code=NOT_APPROVED)
        return challenge.decision

    def _look(self, bank_id: str) -> Answer:
        for _ in range(TRIES):
            if not self._misfortunes:
                return self._as_decided(bank_id)
            self._misfortunes.popleft()
        return Unknown(reason="not seen", unanswered=False)

    def _as_decided(self, bank_id: str) -> Answer:
        transfer = self.transfer_of(bank_id)
        if transfer is not None:
            return self.standing(transfer)
        challenge = self.challenges.get(bank_id)
        if challenge is None:
            return _contradiction("not_found")
        return self.decision(challenge) or _question(bank_id)

    def _transfer(self, request: BankRequest) -> Answer:
        """The one under the key, which is made where there is none."""
        assert request.account is not None, "a transfer needs the account"
        if request.key not in self.transfers:
            self.transfers[request.key] = Transfer(
                bank_id=f"trf_{next(self._numbers)}",
                account_number=request.account.number,
                taken=Taken(
                    amount_minor=request.money.amount_minor, hold_id=request.key, status="settled"
                ),
                currency=request.money.currency,
                asked_at=self._clock.now(),
            )
        return self.standing(self.transfers[request.key])

    def standing(self, transfer: Transfer) -> Answer:
        """How it stands now."""
        if self._clock.now() < transfer.asked_at + SETTLES_AFTER:
            return UnderWay(bank_id=transfer.bank_id)
        code = FAILING_ACCOUNTS.get(transfer.account_number)
        return Approved(bank_id=transfer.bank_id) if code is None else Declined(code=code)

    def transfer_of(self, bank_id: str | None) -> Transfer | None:
        """The one of that id."""
        found = [each for each in self.transfers.values() if each.bank_id == bank_id]
        return found[0] if found else None

    def _answer(self, request: BankRequest) -> Answer:
        begins = request.operation in (Operation.AUTHORIZATION, Operation.TRANSFER)
        if begins and request.bank_id is not None:
            return self._look(request.bank_id)
        if request.ask_only:
            return self._replay(request) or Contradicted(reason="the key is too old to tell")
        if request.ask_first and request.operation == Operation.AUTHORIZATION:
            remembered = self._replay(request)
            if remembered is not None:
                return remembered
        for attempt in range(TRIES):
            answer = self._attempt(request, attempt)
            if answer is not None:
                return answer
        return Unknown(reason="HTTP 500 internal_error", unanswered=False)

    def _attempt(self, request: BankRequest, attempt: int) -> Answer | None:
        """One request and its reply; None for a failure that was received."""
        replay = self._replay(request)
        if replay is not None:
            return replay
        misfortune = self._suffered_at.pop(request.operation, None)
        if misfortune is None and self._misfortunes:
            misfortune = self._misfortunes.popleft()
        if misfortune is Misfortune.FAILS:
            return None
        if misfortune is Misfortune.SILENT_BEFORE:
            return Unknown(reason="no answer", unanswered=True)
        answer = self._carry_out(request, attempt)
        self.done[request.key] += isinstance(answer, Approved)
        is_remembered = misfortune is not Misfortune.FORGETS
        if is_remembered and isinstance(answer, Approved | ActionRequired | UnderWay):
            self._remembered[request.operation, request.key] = answer, self._clock.now()
        if misfortune is not None:
            return Unknown(reason="no answer", unanswered=True)
        return answer

    def remembers(
        self, operation: Operation, key: str
    ) -> Approved | ActionRequired | UnderWay | None:
        """What it answered under the key, for as long as it keeps keys."""
        remembered = self._remembered.get((operation, key))
        if remembered is None or remembered[1] + KEYS_LAST < self._clock.now():
            return None
        return remembered[0]

    def _replay(self, request: BankRequest) -> Approved | ActionRequired | UnderWay | None:
        remembered = self.remembers(request.operation, request.key)
        return None if remembered is None else replace(remembered, replayed=True)

    def _carry_out(self, request: BankRequest, attempt: int) -> Answer:
        match request.operation:
            case Operation.AUTHORIZATION:
                return self._hold(request)
            case Operation.CAPTURE:
                return self._take(request, attempt)
            case Operation.VOID:
                return self._release(request, attempt)
            case Operation.REFUND:
                return self._give_back(request, attempt)
            case Operation.TRANSFER:
                return self._transfer(request)

    def _hold(self, request: BankRequest) -> Answer:
        assert request.card is not None, "an authorization needs the card"
        refusal = self._refusal(request.card, request.money.amount_minor)
        if refusal is not None:
            return Declined(code=refusal)
        hold = Hold(
            key=request.key,
            card_number=request.card.number,
            amount_minor=request.money.amount_minor,
            expires_at=self._clock.now() + HOLD_LASTS,
            currency=request.money.currency,
        )
        bank_id = f"auth_{next(self._numbers)}"
        if request.card.number == CHALLENGED_VISA:
            self.challenges[bank_id] = Challenge(hold=hold, asked_at=self._clock.now())
            return _question(bank_id)
        self.deposit(request.card.number, -request.money.amount_minor)
        self.holds[bank_id] = hold
        return Approved(bank_id=bank_id, expires_at=hold.expires_at)

    def _refusal(self, card: Card, amount_minor: int) -> str | None:
        account, today = self.accounts.get(card.number), self._clock.now()
        if account is None:
            return "invalid_card"
        may_lack_it = card.cvc is None and self.capabilities.cvc_optional
        if card.cvc != account.cvc and not may_lack_it:
            return "invalid_cvv"
        if account.expires < (today.year, today.month):
            return "card_expired"
        if card.number == CHALLENGED_VISA:
            return None  # the money is looked for when the shopper has approved
        return "insufficient_funds" if account.balance_minor < amount_minor else None

    def _take(self, request: BankRequest, attempt: int) -> Answer:
        assert request.bank_id is not None
        hold, amount = self.holds.get(request.bank_id), request.money.amount_minor
        if hold is None:
            return _contradiction("authorization_not_found")
        if hold.ended_by is not None:
            return AlreadyDone(code="authorization_already_used", after_attempts=attempt)
        if hold.expires_at <= self._clock.now():
            return Declined(code="authorization_expired")
        if amount > hold.amount_minor or not self._is_whole(amount, hold.amount_minor):
            return Rejected(reason="amount_mismatch")
        self.deposit(hold.card_number, hold.amount_minor - amount)
        hold.ended_by = f"cap_{next(self._numbers)}"
        self.captures[hold.ended_by] = Taken(amount_minor=amount, hold_id=request.bank_id)
        return Approved(bank_id=hold.ended_by)

    def _release(self, request: BankRequest, attempt: int) -> Answer:
        assert request.bank_id is not None
        hold, challenge = self.holds.get(request.bank_id), self.challenges.get(request.bank_id)
        if hold is None and challenge is not None:
            return self._withdraw(challenge, attempt)
        if hold is None:
            return _contradiction("authorization_not_found")
        if hold.ended_by is not None:
            return AlreadyDone(code="authorization_already_used", after_attempts=attempt)
        self.deposit(hold.card_number, hold.amount_minor)
        hold.ended_by = f"void_{next(self._numbers)}"
        return Approved(bank_id=hold.ended_by)

    def _withdraw(self, challenge: Challenge, attempt: int) -> Answer:
        if self.decision(challenge) is not None:
            return AlreadyDone(code="authorization_already_used", after_attempts=attempt)
        challenge.decision = Declined(code=WITHDRAWN)
        challenge.hold.ended_by = f"void_{next(self._numbers)}"
        return Approved(bank_id=challenge.hold.ended_by)

    def _give_back(self, request: BankRequest, attempt: int) -> Answer:
        assert request.bank_id is not None
        transfer, amount = self.transfer_of(request.bank_id), request.money.amount_minor
        settled = transfer and isinstance(self.standing(transfer), Approved)
        taken = transfer.taken if transfer and settled else self.captures.get(request.bank_id)
        if taken is None:
            return _contradiction("capture_not_found")
        given_back = sum(taken.given_back.values())
        if given_back >= taken.amount_minor:
            return AlreadyDone(code="already_refunded", after_attempts=attempt)
        if given_back + amount > taken.amount_minor and self.capabilities.partial_amounts:
            return Declined(code="refund_exceeds_capture")
        if not self._is_whole(amount, taken.amount_minor):
            return Rejected(reason="amount_mismatch")
        if taken.hold_id in self.holds:
            self.deposit(self.holds[taken.hold_id].card_number, amount)
        bank_id = f"ref_{next(self._numbers)}"
        taken.given_back[bank_id] = amount
        return Approved(bank_id=bank_id)

    def _is_whole(self, amount_minor: int, whole_minor: int) -> bool:
        return self.capabilities.partial_amounts or amount_minor == whole_minor


def _question(bank_id: str) -> ActionRequired:
    return ActionRequired(bank_id=bank_id, url=f"https://bank.test/challenges/{bank_id}")


def _contradiction(code: str) -> Unknown:
    """The bank does not know an id that it gave; perhaps it is only in trouble."""
    return Unknown(reason=f"HTTP 400 {code}", unanswered=False, contradicts=True)


class FakeRecords:
    """The port `BankRecords`: the books of a FakeBank, or whatever `will_tell` says of an id."""

    def __init__(self, bank: FakeBank) -> None:
        self.bank = bank
        self.well = True
        self.looks: list[str] = []
        self.before_each: Callable[[str], None] = lambda _asked: None
        self._told: dict[str, Told] = {}

    def will_tell(self, bank_id: str, told: Told) -> None:
        self._told[bank_id] = told

    def is_well(self) -> bool:
        return self.well

    def look_up(self, operation: Operation, bank_id: str) -> Told:
        self._looked(bank_id)
        if not self.well:
            return NotTold(reason="the bank is not well", bank_is_well=False)
        return self._told.get(bank_id) or self._record(operation, bank_id) or NoRecord()

    def remembered(self, operation: Operation, key: str) -> Told:
        self._looked(key)
        if not self.well:
            return NotTold(reason="the bank is not well", bank_is_well=False)
        answer = self.bank.remembers(operation, key)
        record = answer and self._record(operation, answer.bank_id)
        if record and isinstance(answer, ActionRequired | UnderWay):  # as it was said at first
            waits = "requires_action" if isinstance(answer, ActionRequired) else "pending"
            return replace(record, status=waits)
        return record or NoRecord()

    def _looked(self, asked: str) -> None:
        self.looks.append(asked)
        self.before_each(asked)

    def _record(self, operation: Operation, bank_id: str) -> BankRecord | None:
        match operation:
            case Operation.AUTHORIZATION:
                return self._hold(bank_id)
            case Operation.CAPTURE:
                return self._capture(bank_id)
            case Operation.VOID:
                return self._void(bank_id)
            case Operation.REFUND:
                return self._refund(bank_id)
            case Operation.TRANSFER:
                return self._transfer(bank_id)

    def _transfer(self, bank_id: str) -> BankRecord | None:
        transfer = self.bank.transfer_of(bank_id)
        if transfer is None:
            return None
        words = {UnderWay: "pending", Approved: "settled", Declined: "failed"}
        return BankRecord(
            operation=Operation.TRANSFER,
            bank_id=bank_id,
            status=words[type(self.bank.standing(transfer))],
            amount_minor=transfer.taken.amount_minor,
            currency=transfer.currency,
        )

    def _hold(self, bank_id: str) -> BankRecord | None:
        hold, status = self.bank.holds.get(bank_id), None
        if hold is None and bank_id in self.bank.challenges:
            challenge = self.bank.challenges[bank_id]
            hold = challenge.hold
            status = "requires_action" if self.bank.decision(challenge) is None else "declined"
        if hold is None:
            return None
        return BankRecord(
            operation=Operation.AUTHORIZATION,
            bank_id=bank_id,
            status=status or hold.status,
            amount_minor=hold.amount_minor,
            currency=hold.currency,
            expires_at=hold.expires_at,
        )

    def _capture(self, bank_id: str) -> BankRecord | None:
        taken = self.bank.captures.get(bank_id)
        if taken is None:
            return None
        return BankRecord(
            operation=Operation.CAPTURE,
            bank_id=bank_id,
            status=taken.status,
            amount_minor=taken.amount_minor,
            currency=self.bank.holds[taken.hold_id].currency,
            about=taken.hold_id,
        )

    def _void(self, bank_id: str) -> BankRecord | None:
        waited = {each: challenge.hold for each, challenge in self.bank.challenges.items()}
        holds = waited | self.bank.holds
        held = [each for each, hold in holds.items() if hold.ended_by == bank_id]
        return BankRecord(
            operation=Operation.VOID,
            bank_id=bank_id,
            status="voided",
            amount_minor=None,
            currency=None,
            about=held[0],
        )

    def _refund(self, bank_id: str) -> BankRecord | None:
        transfers = {each.bank_id: each for each in self.bank.transfers.values()}
        currencies = {each: transfers[each].currency for each in transfers}
        every = self.bank.captures | {each: transfers[each].taken for each in transfers}
        for capture_id, taken in every.items():
            if bank_id in taken.given_back:
                return BankRecord(
                    operation=Operation.REFUND,
                    bank_id=bank_id,
                    status="refunded",
                    amount_minor=taken.given_back[bank_id],
                    currency=currencies.get(capture_id) or self.bank.holds[taken.hold_id].currency,
                    about=capture_id,
                )
        return None


# --- the ledger -------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class Outstanding:
    """A bank call without an outcome, and when it may be taken up."""

    call: BankCall
    due_at: float
    since: float
    in_flight: bool = True
    parked: bool = False

    def wait_for_another(self, now: float) -> None:
        """Nobody is at it, and the card is gone."""
        self.parked, self.in_flight = True, False
        self.due_at = now + awaiting_pause(self.call)
        self.call = replace(self.call, sealed_card=None, reached=True, contradictions=0)


@dataclass(slots=True)
class Tables:
    """Everything that is stored."""

    events: dict[UUID, list[StoredEvent]] = field(default_factory=dict)
    causes: dict[UUID, list[Cause]] = field(default_factory=dict)
    claims: dict[tuple[Tenant, str], ClaimKey] = field(default_factory=dict)
    answers: dict[tuple[Tenant, str], StoredAnswer] = field(default_factory=dict)
    slots: dict[tuple[Tenant, str], UUID] = field(default_factory=dict)
    calls: dict[UUID, Outstanding] = field(default_factory=dict)
    receipts: dict[UUID, receipts_model.Document] = field(default_factory=dict)
    refunds: dict[UUID, list[refunds_model.Document]] = field(default_factory=dict)
    cards: dict[UUID, KeepCard] = field(default_factory=dict)
    used_tokens: set[UUID] = field(default_factory=set)
    personal: dict[UUID, KeepPersonalData] = field(default_factory=dict)
    responses: list[RespondToDispute] = field(default_factory=list)
    erasures: set[UUID] = field(default_factory=set)

    def copy(self) -> "Tables":
        """Another, in which rows can be added and deleted without a trace in this one."""
        return Tables(
            events={payment_id: list(log) for payment_id, log in self.events.items()},
            causes={payment_id: list(causes) for payment_id, causes in self.causes.items()},
            claims=dict(self.claims),
            answers=dict(self.answers),
            slots=dict(self.slots),
            calls=dict(self.calls),
            receipts=dict(self.receipts),
            refunds=dict(self.refunds),
            cards=dict(self.cards),
            used_tokens=set(self.used_tokens),
            personal=dict(self.personal),
            responses=list(self.responses),
            erasures=set(self.erasures),
        )


class InMemoryStore:
    """What a database would hold: each `record` is a transaction, and so is each of the others."""

    def __init__(self, clock: SteppableClock) -> None:
        self.tables = Tables()
        self.clock = clock
        self.lock = threading.RLock()

    def record(
        self,
        stored_events: Sequence[StoredEvent],
        cause: Cause,
        history: Sequence[Any],
        beside: Sequence[Record],
    ) -> None:
        """All of it, or none."""
        with self.lock:
            draft = self.tables.copy()
            for each in beside:
                self._write(draft, each)
            _append(draft, stored_events, cause)
            payment = [event for event in history if isinstance(event, Payment.Event)]
            if payment:
                payment_id = payment[0].originator_id
                draft.receipts[payment_id] = deepcopy(receipts_model.fold(payment))
                draft.refunds[payment_id] = deepcopy(refunds_model.fold(payment))
            self.tables = draft

    def refund(self, refund_id: UUID) -> refunds_model.Document | None:
        """The refund of that id, in either spelling."""
        for each in (row for rows in self.tables.refunds.values() for row in rows):
            if refunds_model.uuid_of(each["id"]) == refund_id:
                return each
        return None

    def _write(self, draft: Tables, record: Record) -> None:
        match record:
            case ClaimKey() | TakeOrderSlot() | UseToken():
                _take_name(draft, record)
            case AnswerKey(tenant=tenant, key=key, answer=answer):
                draft.answers[tenant, key] = answer
            case FreeOrderSlot(tenant=tenant, order_id=order_id, payment_id=payment_id):
                if draft.slots.get((tenant, order_id)) == payment_id:
                    del draft.slots[tenant, order_id]
            case ContinueCall(call=call, following=following, lease_seconds=lease_seconds):
                held_by(draft, call)
                now = self.clock.monotonic()
                draft.calls[call.payment_id] = Outstanding(
                    call=following, due_at=now + lease_seconds, since=now
                )
            case BeginCall(call=call, lease_seconds=lease_seconds, ours=ours):
                if call.payment_id in draft.calls:
                    raise ConcurrentChange(call.bank_key)
                now = self.clock.monotonic()
                draft.calls[call.payment_id] = Outstanding(
                    call=call, due_at=now + lease_seconds, since=now, in_flight=ours
                )
            case EndCall(call=call):
                held_by(draft, call)
                del draft.calls[call.payment_id]
            case AwaitShopper(call=call) | AwaitTransfer(call=call):
                waiting = replace(held_by(draft, call))
                waiting.wait_for_another(self.clock.monotonic())
                draft.calls[call.payment_id] = waiting
            case _:
                _keep_or_forget(draft, record)


def _keep_or_forget(
    draft: Tables,
    record: KeepCard
    | ForgetCard
    | KeepPersonalData
    | ForgetPersonalData
    | RespondToDispute
    | LiveByClock
    | EraseLater,
) -> None:
    """What is apart from the log."""
    match record:
        case KeepCard(method_id=method_id):
            draft.cards[method_id] = record
        case ForgetCard(method_id=method_id, cvc_only=False):
            draft.cards.pop(method_id, None)
        case ForgetCard(method_id=method_id):
            if method_id in draft.cards:
                draft.cards[method_id] = replace(draft.cards[method_id], sealed_cvc=None)
        case KeepPersonalData(owner=owner):
            draft.personal[owner] = record
        case ForgetPersonalData(owner=owner):
            draft.personal.pop(owner, None)
        case RespondToDispute():
            draft.responses.append(record)
        case LiveByClock():
            pass  # whoever asks by which clock they live asks the database
        case EraseLater(customer_id=customer_id):
            draft.erasures.add(customer_id)


def _take_name(draft: Tables, record: ClaimKey | TakeOrderSlot | UseToken) -> None:
    """A key, an order or a token, which only one can have."""
    match record:
        case ClaimKey(claim=claim):
            if (claim.tenant, claim.key) in draft.claims:
                raise KeyAlreadyClaimed(claim.key)
            draft.claims[claim.tenant, claim.key] = record
            if record.answer is not None:
                draft.answers[claim.tenant, claim.key] = record.answer
        case UseToken(token_id=token_id):
            if token_id in draft.used_tokens:
                raise TokenAlreadyUsed("The token was used before.")
            draft.used_tokens.add(token_id)
        case TakeOrderSlot(tenant=tenant, order_id=order_id, payment_id=payment_id):
            if (tenant, order_id) in draft.slots:
                raise OrderAlreadyPaid("The order has a live payment.", param="order_id")
            draft.slots[tenant, order_id] = payment_id


def _append(draft: Tables, stored_events: Sequence[StoredEvent], cause: Cause) -> None:
    for event in stored_events:
        assert isinstance(event.originator_id, UUID)
        log = draft.events.setdefault(event.originator_id, [])
        if event.originator_version != len(log) + 1:
            raise ConcurrentChange(f"version {event.originator_version} after {len(log)}")
        log.append(event)
        draft.causes.setdefault(event.originator_id, []).append(cause)


def held_by(tables: Tables, call: BankCall) -> Outstanding:
    """The outstanding call, if whoever holds `call` may still change it. Raises LeaseLost."""
    outstanding = tables.calls.get(call.payment_id)
    if outstanding is None:
        raise LeaseLost(call.bank_key)
    now = outstanding.call
    if (now.bank_key, now.fence) != (call.bank_key, call.fence):
        raise LeaseLost(call.bank_key)
    return outstanding


class InMemoryBankCalls:
    """The port `BankCalls`, on an InMemoryStore."""

    def __init__(self, store: InMemoryStore, *, quiet_seconds: float = QUIET_SECONDS) -> None:
        self._store = store
        self._quiet_seconds = quiet_seconds

    def park(self, call: BankCall, answer: Unknown | ActionRequired | UnderWay) -> None:
        with self._store.lock:
            outstanding = held_by(self._store.tables, call)
            if isinstance(answer, ActionRequired | UnderWay):
                outstanding.wait_for_another(self._store.clock.monotonic())
                return
            unknown = answer
            quiet = unknown.unanswered or call.unanswered
            doubled = 2.0 ** min(call.attempts, 9)
            pause = self._quiet_seconds if quiet else min(doubled, LONGEST_PAUSE_SECONDS)
            outstanding.call = replace(
                outstanding.call,
                unanswered=outstanding.call.unanswered + unknown.unanswered,
                reached=outstanding.call.reached or unknown.reached,
                contradictions=(outstanding.call.contradictions + 1) * unknown.contradicts,
            )
            outstanding.parked, outstanding.in_flight = True, False
            outstanding.due_at = self._store.clock.monotonic() + pause

    def take_due(self, limit: int, lease_seconds: float) -> Sequence[BankCall]:
        with self._store.lock:
            now = self._store.clock.monotonic()
            due = [each for each in self._store.tables.calls.values() if each.due_at <= now]
            taken = sorted(due, key=lambda each: each.due_at)[:limit]
            for each in taken:
                each.call = replace(
                    each.call,
                    attempts=each.call.attempts + 1,
                    fence=each.call.fence + 1,
                    unanswered=each.call.unanswered + each.in_flight,
                    age_seconds=now - each.since,
                )
                each.in_flight, each.due_at = True, now + lease_seconds
            return [each.call for each in taken]

    def unattended(self, payment_id: UUID) -> BankCall | None:
        with self._store.lock:
            outstanding = self._store.tables.calls.get(payment_id)
            if outstanding is None:
                return None
            running = outstanding.due_at > self._store.clock.monotonic()
            return None if outstanding.in_flight and running else outstanding.call

    def outstanding(self, payment_id: UUID) -> BankCall | None:
        with self._store.lock:
            found = self._store.tables.calls.get(payment_id)
            return None if found is None else found.call


class InMemoryKeys:
    """What became of idempotency keys, on an InMemoryStore."""

    def __init__(self, store: InMemoryStore) -> None:
        self._store = store

    def find(self, tenant: Tenant, key: str) -> Claimed | None:
        with self._store.lock:
            tables, now = self._store.tables, self._store.clock.monotonic()
            claim = tables.claims.get((tenant, key))
            if claim is None:
                return None
            answer = tables.answers.get((tenant, key))
            call = tables.calls.get(claim.payment_id)
            keys = (
                () if call is None else (call.call.cause.idempotency_key, call.call.superseded_key)
            )
            ours = key in keys
            pending = call is not None and ours and (call.parked or call.due_at <= now)
            return Claimed(
                fingerprint=claim.claim.fingerprint,
                payment_id=claim.payment_id,
                answer=answer,
                pending=answer is None and pending,
            )


class InMemoryRecorder(ApplicationRecorder):
    """The library's recorder, on an InMemoryStore."""

    def __init__(self, store: InMemoryStore) -> None:
        self._store = store

    def insert_events(
        self,
        stored_events: Sequence[StoredEvent],
        *,
        cause: Cause | None = None,
        history: Sequence[Payment.Event] = (),
        beside: Sequence[Record] = (),
        **_: Any,
    ) -> None:
        if stored_events:
            self._store.record(stored_events, cause or Cause(actor="system"), history, beside)

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        assert isinstance(originator_id, UUID)
        after, last = gt or 0, lte if lte is not None else 2**62
        log = self._store.tables.events.get(originator_id, [])
        events = [event for event in log if after < event.originator_version <= last]
        return (events[::-1] if desc else events)[:limit]

    def select_notifications(self, *_: Any, **__: Any) -> Sequence[Notification]:
        raise NotSupportedError

    def max_notification_id(self) -> int | None:
        raise NotSupportedError

    def subscribe(self, *_: Any, **__: Any) -> Subscription[ApplicationRecorder]:
        raise NotSupportedError


class InMemoryFactory(InfrastructureFactory[TrackingRecorder]):
    """Gives the library's Application the recorder above."""

    def __init__(self, env: Environment, store: InMemoryStore) -> None:
        super().__init__(env)
        self._store = store

    def application_recorder(self) -> ApplicationRecorder:
        return InMemoryRecorder(self._store)

    def aggregate_recorder(self, purpose: str = "events") -> AggregateRecorder:
        return self.application_recorder()

    def tracking_recorder(self, *_: Any, **__: Any) -> TrackingRecorder:
        raise NotSupportedError

    def process_recorder(self) -> ProcessRecorder:
        raise NotSupportedError


class InMemoryLedger(PaymentLedger):
    """The whole ledger with a fake behind every port. Two on one store are two processes."""

    def __init__(
        self,
        *,
        capabilities: BankCapabilities = FULL_AMOUNTS,
        beside: "InMemoryLedger | None" = None,
    ) -> None:
        clock = beside.steppable if beside else SteppableClock()
        self.steppable: SteppableClock = clock
        self.fake_bank: FakeBank = beside.fake_bank if beside else FakeBank(clock, capabilities)
        self.store: InMemoryStore = beside.store if beside else InMemoryStore(clock)
        super().__init__(
            {},
            bank=self.fake_bank,
            bank_calls=InMemoryBankCalls(self.store),
            clock=self.steppable,
            ids=beside.ids if beside else SequentialIds(),
            vault=PlainVault(),
            answers=PlainAnswers(),
        )

    def construct_factory(self, env: Environment) -> InMemoryFactory:
        return InMemoryFactory(env, self.store)

    def construct_mapper(self) -> FlatMapper:
        return FlatMapper(FlatJSON())
