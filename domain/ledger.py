"""The application service: one method a command, each of them the same three steps.

    Tx 1   what is asked of the bank, the idempotency key, the order's slot, the receipt    (commit)
    call   the bank, under a key that never changes for this operation, in no transaction
    Tx 2   what became of it, the stored answer, the receipt                                (commit)

What Tx 1 wrote is enough for anyone to finish the job after any crash. `complete` is that job: the
request that asked runs it, and so does the worker.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError, Application
from eventsourcing.domain import Aggregate

from domain.accounts import BankAccount, Means
from domain.bank import (
    ActionRequired,
    Answer,
    Bank,
    BankRequest,
    Contradicted,
    Declined,
    Operation,
    Outcome,
    UnderWay,
    Unknown,
)
from domain.cards import Card
from domain.commands import (
    AuthorizePayment,
    CapturePayment,
    Cause,
    Command,
    ExpireAuthorization,
    MakePayment,
    Metadata,
    RefundPayment,
    ResolvePayment,
    Tenant,
    VoidPayment,
)
from domain.errors import (
    BankUnavailable,
    ConcurrentChange,
    CurrencyUnsupported,
    LeaseLost,
    OperationInProgress,
    PaymentNotFound,
    SourceTypeUnsupported,
    StoreUnavailable,
)
from domain.ids import MalformedId, Prefix, decode, encode
from domain.money import Money
from domain.payment import (
    LIVE,
    CaptureMethod,
    Difference,
    Origin,
    Payment,
    RunningOperation,
    bank_key,
)
from domain.ports import Answers, BankCalls, Clock, Ids, Vault
from domain.records import (
    AnswerKey,
    AwaitShopper,
    AwaitTransfer,
    BankCall,
    BeginCall,
    ClaimKey,
    ContinueCall,
    EndCall,
    ForgetCard,
    FreeOrderSlot,
    Record,
    StoredAnswer,
    TakeOrderSlot,
    claimed_by,
)
from domain.resolution import resolve

# Longer than a request may take and the bank may still be working on what a dead process sent, with
# the partner's times; the settings have others.
LEASE_SECONDS: Final = 30.0

# Left for Tx 2 and for writing the answer, out of the time that a request has.
RESERVED_SECONDS: Final = 0.5

# How often the store is tried with an outcome, which would have to be asked for again if it were lost.
OUTCOME_TRIES: Final = 3

# How often a command is decided anew because another was recorded first; nothing has gone out yet.
DECIDE_ATTEMPTS: Final = 3


# How many times running, over about a minute, an answer that cannot be is heard before it is believed
# to be meant: the bank's own trouble speaks like that for a while.
CONTRADICTIONS_HEARD_OUT: Final = 6

# The bank remembers keys for 24 hours. Well before that, what it would do a second time is not put to
# it again by machine.
REPEATED_FOR_SECONDS: Final = 20 * 3600.0

# Which order a payment is for, in its metadata, where it was not asked for by one.
ORDER_ID: Final = "order_id"
LONGEST_ORDER_ID: Final = 255

# How long a shopper is waited for. The bank closes its page before that, and then says so itself.
SHOPPER_AWAITED_SECONDS: Final = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The command has its outcome."""

    answer: StoredAnswer
    history: Sequence[Payment.Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """The outcome is not known in time; the worker goes on. `history` is what is certain.
    `taken_over`: another has the call already, and may even have its outcome. `action_url`: where the
    shopper, who is waited for, has to approve."""

    call: BankCall
    history: Sequence[Payment.Event]
    taken_over: bool = False
    action_url: str | None = None


Reply = Settled | Pending
# What changes with a payment that has its outcome, of the same shard, to be recorded with it.
Follow = Callable[[Payment], Sequence[Aggregate]]


Begun = TypeVar("Begun")


class PaymentLedger(Application[UUID]):
    """Payments, by command. Refusals are DomainErrors, and leave nothing behind."""

    name = "ledger"

    def __init__(
        self,
        env: dict[str, str] | None = None,
        *,
        bank: Bank,
        bank_calls: BankCalls,
        clock: Clock,
        ids: Ids,
        vault: Vault,
        answers: Answers,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        super().__init__(env)
        self.bank = bank
        self.bank_calls = bank_calls
        self.clock = clock
        self.ids = ids
        self.vault = vault
        self.answers = answers
        self.lease_seconds = lease_seconds
        self.follow: Follow = lambda _payment: ()

    # --- commands ------------------------------------------------------------------------------

    def authorize(self, command: AuthorizePayment) -> Reply:
        """Holds the money. Raises CurrencyUnsupported, CardRefused, BankUnavailable,
        OrderAlreadyPaid."""
        self.refuse_unless_taken(command.money, command.card)
        payment = Payment.request_authorization(
            payment_id=self.ids.new(),
            tenant=command.tenant,
            order_id=command.order_id,
            customer_id=command.customer_id,
            money=command.money,
            card=command.card.face(),
            metadata=command.metadata,
            at=self.clock.now(),
            origin=Origin(
                payment_method_id=command.method_id, card_fingerprint=command.fingerprint
            ),
        )
        slot = TakeOrderSlot(
            tenant=command.tenant, order_id=command.order_id, payment_id=payment.id
        )
        call = self.begun_if_admitted(
            lambda: self.begin(payment, command, slot, means=command.card)
        )
        return self.finish(payment, call, command, means=command.card)

    def pay(self, command: MakePayment, *records: Record) -> Reply:
        """Takes the money of a card: the capture follows the hold by itself. Raises
        CurrencyUnsupported, CardRefused, BankUnavailable, and what `records` say that they raise."""
        payment = self._payment_of(command)
        call = self.begun_if_admitted(
            lambda: self.begin(payment, command, *records, means=command.means)
        )
        return self.finish(payment, call, command, means=command.means)

    def transfer(
        self, command: MakePayment, answer: Callable[[Payment], StoredAnswer]
    ) -> StoredAnswer:
        """Asks for the money of an account, which a worker sees through. The command has its answer at
        once, which is what `answer` gives. Raises CurrencyUnsupported, SourceTypeUnsupported,
        BankUnavailable."""
        payment = self._payment_of(command)
        told = answer(payment)
        claims = claimed_by(command.claim, command.cause, payment.id, told)
        self.begun_if_admitted(
            lambda: self.begin(
                payment,
                replace(command, claim=None),
                *claims,
                means=command.means,
                starts_in_seconds=0.0,
            )
        )
        self.bank.was_not_begun()  # by this request
        return told

    def capture(self, command: CapturePayment) -> Reply:
        """Takes the money. Raises PaymentNotFound and what `Payment.request_capture` raises."""

        def decide(payment: Payment) -> None:
            payment.request_capture(
                command.amount_minor, self.bank.capabilities, at=self.clock.now()
            )

        return self._act(command, command.payment_id, decide)

    def void(self, command: VoidPayment) -> Reply:
        """Releases the hold. Raises PaymentNotFound and what `Payment.request_void` raises."""

        def decide(payment: Payment) -> None:
            payment.request_void(at=self.clock.now())

        return self._act(command, command.payment_id, decide)

    def expire(self, command: ExpireAuthorization) -> Reply:
        """Releases a hold past its time. Raises PaymentNotFound and what `Payment.request_expiry`
        raises."""

        def decide(payment: Payment) -> None:
            payment.request_expiry(at=self.clock.now())

        return self._act(command, command.payment_id, decide)

    def refund(self, command: RefundPayment) -> Reply:
        """Gives money back. Raises PaymentNotFound and what `Payment.request_refund` raises."""
        prefix = Prefix.CHARGE_REFUND if command.by_charge else Prefix.REFUND
        refund_id = encode(prefix, self.ids.new())

        def decide(payment: Payment) -> None:
            payment.request_refund(
                refund_id,
                command.amount_minor,
                self.bank.capabilities,
                reason=command.reason,
                metadata=command.metadata,
                at=self.clock.now(),
            )

        return self._act(command, command.payment_id, decide)

    def resolve(self, command: ResolvePayment) -> Payment:
        """Records what an operator found. Raises PaymentNotFound, OperationInProgress while somebody
        is at work on it, ConcurrentChange, LeaseLost, and what `domain.resolution` raises."""
        payment = self.payment(command.payment_id, command.tenant)
        version, was_live, running = payment.version, payment.status in LIVE, payment.running
        refund_id = encode(Prefix.REFUND, self.ids.new())
        resolve(payment, command, refund_id=refund_id, at=self.clock.now())
        beside: list[Record] = []
        if running is not None:
            call = self.bank_calls.unattended(payment.id)
            if call is None or call.bank_key != _bank_key(payment, running):
                raise OperationInProgress(
                    f"Somebody is at work on the {running.operation}: resolve it when nobody is."
                )
            # What was asked first is answered by the first event; the others follow from the review.
            beside += _ended(call, self.answers.settled(payment.history[: version + 1], call))
        beside += _freed_slot(payment, was_live=was_live)
        self._record_payment(payment, command.cause, beside, tries=OUTCOME_TRIES)
        return payment

    def note_differences(
        self, payment: Payment, differences: Sequence[Difference], cause: Cause
    ) -> None:
        """Records, once each, how the bank's records differ from `payment`, which was read before
        they were. Raises ConcurrentChange where it changed since: then they may differ no more."""
        for difference in differences:
            payment.note_difference(difference, at=self.clock.now())
        if payment.pending_events:
            self._record_payment(payment, cause, beside=())
        elif self.payment(payment.id, payment.tenant).version != payment.version:
            raise ConcurrentChange(str(payment.id))

    def refuse_unless_taken(self, money: Money, means: Means) -> None:
        """Raises CurrencyUnsupported, CardRefused, SourceTypeUnsupported: what is no good can be told
        before any effect."""
        bank = self.bank.capabilities
        if not bank.takes(money.currency):
            raise CurrencyUnsupported(f"The bank does not take {money.currency}.", param="currency")
        if isinstance(means, Card):
            means.check(self.clock.now())
        elif not bank.bank_transfers:
            raise SourceTypeUnsupported("The bank takes no bank transfers.", param="type")

    def begun_if_admitted(self, begin: Callable[[], Begun]) -> Begun:
        """What `begin` gives, unless the bank is down. Raises BankUnavailable, and what `begin`
        raises."""
        if not self.bank.admits():
            raise BankUnavailable("The bank is down, and nothing was begun. Ask again in a moment.")
        try:
            return begin()
        except Exception:
            self.bank.was_not_begun()
            raise

    def _payment_of(self, command: MakePayment) -> Payment:
        self.refuse_unless_taken(command.money, command.means)
        return requested(
            command.means,
            payment_id=self.ids.new(),
            tenant=command.tenant,
            order_id=order_id_in(command.metadata),
            customer_id=command.customer_id,
            money=command.money,
            metadata=command.metadata,
            at=self.clock.now(),
            origin=Origin(
                payment_method_id=command.method_id,
                card_fingerprint=command.fingerprint,
                capture_method=CaptureMethod.AUTOMATIC,
                description=command.description,
            ),
        )

    # --- reading -------------------------------------------------------------------------------

    def payment(self, payment_id: UUID, tenant: Tenant, *, version: int | None = None) -> Payment:
        """The payment as of `version`, or as it is. Raises PaymentNotFound, also for another's."""
        try:
            payment: Payment = self.repository.get(
                payment_id, version=version, projector_func=replayed
            )
        except AggregateNotFoundError as error:
            raise PaymentNotFound("There is no such payment.", param="payment_id") from error
        if payment.tenant != tenant:
            raise PaymentNotFound("There is no such payment.", param="payment_id")
        return payment

    # --- finishing what was begun --------------------------------------------------------------

    def complete(
        self, payment: Payment, call: BankCall, *, deadline: float, means: Means | None = None
    ) -> Reply:
        """Puts the outstanding `call` to the bank and records what came of it.

        `deadline`: monotonic seconds. `means`: where the caller has it at hand; else it is unsealed.
        Raises LeaseLost when another took the call over, and nothing was changed.
        """
        while True:
            answer = self._answer(payment, call, deadline, means)
            if isinstance(answer, ActionRequired):
                return self._await_shopper(payment, call, answer)
            if isinstance(answer, UnderWay):
                return self._await_transfer(payment, call, answer)
            if isinstance(answer, Unknown):
                if not answer.contradicts or call.contradictions < CONTRADICTIONS_HEARD_OUT:
                    self.bank_calls.park(call, answer)
                    return Pending(call=call, history=payment.history)
                answer = Contradicted(reason=answer.reason)
            ended = self._end(payment, call, answer)
            if isinstance(ended, Settled):
                return ended
            call, means = ended, None

    def resume(self, call: BankCall, *, deadline: float) -> Reply:
        """Takes up a call that its own request did not finish. Raises LeaseLost where another did."""
        payment = self.payment(call.payment_id, call.tenant)
        if payment.running is None or _bank_key(payment, payment.running) != call.bank_key:
            raise LeaseLost(call.bank_key)
        return self.complete(payment, call, deadline=deadline)

    # --- steps ---------------------------------------------------------------------------------

    def _act(self, command: Command, payment_id: UUID, decide: Callable[[Payment], None]) -> Reply:
        """Decides on the payment as it is and begins; decides again if it changed meanwhile."""
        for attempt in range(1, DECIDE_ATTEMPTS + 1):
            payment = self.payment(payment_id, command.tenant)
            decide(payment)
            try:
                call = self.begin(payment, command)
            except ConcurrentChange:
                if attempt == DECIDE_ATTEMPTS:
                    raise
            else:
                break
        return self.finish(payment, call, command)

    def finish(
        self, payment: Payment, call: BankCall, command: Command, means: Means | None = None
    ) -> Reply:
        """Completes what was begun. A store that cannot be reached any more, or has something newer of
        the payment, leaves it to the worker, who has it already where the lease was lost."""
        certain = tuple(payment.history)
        try:
            return self.complete(payment, call, deadline=command.deadline, means=means)
        except (StoreUnavailable, ConcurrentChange):
            return Pending(call=call, history=certain)
        except LeaseLost:
            return Pending(call=call, history=certain, taken_over=True)

    def _await_shopper(self, payment: Payment, call: BankCall, answer: ActionRequired) -> Reply:
        """Says once that the shopper has to approve, and leaves the call to a worker, which looks again
        every few seconds; up to a day."""
        if payment.awaited_authorization_id is None:
            payment.require_action(
                answer.bank_id,
                answer.url,
                maybe_held=call.unanswered > answer.replayed,
                at=self.clock.now(),
            )
            self._record_payment(
                payment, call.cause, [AwaitShopper(call=call)], tries=OUTCOME_TRIES
            )
        elif call.age_seconds < SHOPPER_AWAITED_SECONDS:
            self.bank_calls.park(call, answer)
        else:
            payment.give_up_on_shopper(at=self.clock.now())
            return self._record_outcome(payment, call, was_live=True)
        return Pending(call=call, history=payment.history, action_url=payment.action_url)

    def _await_transfer(self, payment: Payment, call: BankCall, answer: UnderWay) -> Reply:
        """Says once that the bank is at it, and leaves the call to a worker, which looks again for as
        long as it takes."""
        if payment.awaited_transfer_id is None:
            payment.accept_transfer(answer.bank_id, at=self.clock.now())
            self._record_payment(
                payment, call.cause, [AwaitTransfer(call=call)], tries=OUTCOME_TRIES
            )
        else:
            self.bank_calls.park(call, answer)
        return Pending(call=call, history=payment.history)

    def begin(
        self,
        payment: Payment,
        command: Command,
        *records: Record,
        means: Means | None = None,
        others: Sequence[Aggregate] = (),
        starts_in_seconds: float | None = None,
    ) -> BankCall:
        """Tx 1. `others`: aggregates of the same shard, of which something is recorded with it.
        `starts_in_seconds`: a worker is to put the call to the bank, not before."""
        call = self._bank_call(payment, command, means)
        ours = starts_in_seconds is None
        if not ours:  # nobody waits for its outcome: an idempotency key has its answer already
            call = replace(call, cause=replace(call.cause, idempotency_key=None))
        lease = self.lease_seconds if starts_in_seconds is None else starts_in_seconds
        begun = BeginCall(call=call, lease_seconds=lease, ours=ours)
        beside = [*_claimed(command, payment), *records, begun]
        self.record((*others, payment), command.cause, beside)
        return call

    def take_over(
        self, payment: Payment, command: Command, others: Sequence[Aggregate] = ()
    ) -> BankCall:
        """Tx 1, where a call waits for its shopper and another takes its place. A worker may be at it,
        and is told nothing: it only looks, and cannot record what it sees any more. Raises
        ConcurrentChange, also where it could first."""
        waiting = self.bank_calls.outstanding(payment.id)
        if waiting is None:
            raise ConcurrentChange(str(payment.id))
        call = replace(
            self._bank_call(payment, command, means=None),
            fence=waiting.fence + 1,
            superseded_key=waiting.cause.idempotency_key,
        )
        continued = ContinueCall(call=waiting, following=call, lease_seconds=self.lease_seconds)
        try:
            beside = [*_claimed(command, payment), continued]
            self.record((*others, payment), command.cause, beside)
        except LeaseLost as error:
            raise ConcurrentChange(str(payment.id)) from error
        return call

    def withdrawal(self, payment: Payment, cause: Cause) -> ContinueCall:
        """What is recorded with a payment that is withdrawn from its shopper: a worker releases it, and
        then whoever asked for it has an answer. Raises ConcurrentChange where nothing waits any more."""
        waiting = self.bank_calls.outstanding(payment.id)
        if waiting is None or payment.running is None:
            raise ConcurrentChange(str(payment.id))
        following = BankCall(
            payment_id=payment.id,
            tenant=payment.tenant,
            operation=payment.running.operation,
            bank_key=_bank_key(payment, payment.running),
            cause=replace(cause, idempotency_key=None),
            audience=waiting.audience,
            fence=waiting.fence + 1,
            superseded_key=waiting.cause.idempotency_key,
        )
        return ContinueCall(call=waiting, following=following, lease_seconds=0.0)

    def _bank_call(self, payment: Payment, command: Command, means: Means | None) -> BankCall:
        assert payment.running is not None
        return BankCall(
            payment_id=payment.id,
            tenant=payment.tenant,
            operation=payment.running.operation,
            bank_key=_bank_key(payment, payment.running),
            cause=command.cause,
            audience=command.audience,
            sealed_card=None if means is None else self.vault.seal(means, payment.id),
            return_url=getattr(command, "return_url", None),
        )

    def _answer(
        self, payment: Payment, call: BankCall, deadline: float, means: Means | None
    ) -> Answer:
        begins = call.operation in (Operation.AUTHORIZATION, Operation.TRANSFER)
        if payment.test_outcome is not None and begins:
            return Declined(code=payment.test_outcome)
        return self.bank.perform(self._bank_request(payment, call, deadline, means))

    def _bank_request(
        self, payment: Payment, call: BankCall, deadline: float, means: Means | None
    ) -> BankRequest:
        assert payment.running is not None
        if means is None and call.sealed_card is not None:
            means = self.vault.unseal(call.sealed_card, payment.id)
        return BankRequest(
            operation=call.operation,
            key=call.bank_key,
            money=Money(payment.running.amount_minor, payment.money.currency),
            bank_id=_bank_id(payment, call.operation),
            card=means if isinstance(means, Card) else None,
            account=means if isinstance(means, BankAccount) else None,
            return_url=call.return_url,
            ask_first=call.unanswered > 0,
            ask_only=_is_too_late_to_repeat(payment, call),
            attempts_before=_attempts_at_the_bank(call),
            seconds_left=deadline - RESERVED_SECONDS - self.clock.monotonic(),
        )

    def _end(self, payment: Payment, call: BankCall, answer: Outcome) -> Settled | BankCall:
        """Tx 2; the call that follows by itself, where one does."""
        was_live = payment.status in LIVE
        payment.settle(
            answer,
            attempts_before=_attempts_at_the_bank(call),
            unanswered_before=call.unanswered,
            at=self.clock.now(),
        )
        payment.go_on(self.bank.capabilities, at=self.clock.now())
        if payment.running is not None:
            following = self._following(payment, call)
            beside: list[Record] = [
                ContinueCall(call=call, following=following, lease_seconds=self.lease_seconds),
                *_used_cvc(payment, call),
            ]
            self._record_payment(payment, call.cause, beside, tries=OUTCOME_TRIES)
            return following
        return self._record_outcome(payment, call, was_live=was_live)

    def _record_outcome(self, payment: Payment, call: BankCall, *, was_live: bool) -> Settled:
        stored = self.answers.settled(payment.history, call)
        beside = [
            *_ended(call, stored),
            *_freed_slot(payment, was_live=was_live),
            *_used_cvc(payment, call),
        ]
        self._record_payment(payment, call.cause, beside, tries=OUTCOME_TRIES)
        return Settled(answer=stored, history=payment.history)

    def _following(self, payment: Payment, call: BankCall) -> BankCall:
        """The next call of the same request. It has everything but the card."""
        assert payment.running is not None
        return BankCall(
            payment_id=payment.id,
            tenant=payment.tenant,
            operation=payment.running.operation,
            bank_key=_bank_key(payment, payment.running),
            cause=call.cause,
            audience=call.audience,
            fence=call.fence + 1,
            superseded_key=call.superseded_key,
        )

    def _record_payment(
        self, payment: Payment, cause: Cause, beside: Sequence[Record], tries: int = 1
    ) -> None:
        """With what follows from it; which is decided again where that changed meanwhile."""
        for attempt in range(1, DECIDE_ATTEMPTS + 1):
            following = self.follow(payment)
            try:
                self.record((*following, payment), cause, beside, tries)
                break
            except ConcurrentChange:
                if not following or attempt == DECIDE_ATTEMPTS:
                    raise

    def record(
        self,
        aggregates: Sequence[Aggregate],
        cause: Cause,
        beside: Sequence[Record],
        tries: int = 1,
    ) -> None:
        """What is new of `aggregates`, which are of one shard, and `beside`, in one transaction.
        Raises ConcurrentChange, and what a record says that it raises."""
        # As `save` does, without its checks of what kind of aggregate this is, and its snapshots.
        new = [(aggregate, list(aggregate.collect_events())) for aggregate in aggregates]
        events = [event for _, its in new for event in its]
        history = [event for aggregate in aggregates for event in aggregate.history]  # type: ignore[attr-defined]
        try:
            self.events.put(events, cause=cause, history=history, beside=beside, tries=tries)
        except ConcurrentChange:
            for aggregate, its in new:  # whoever decides again has it still
                aggregate.pending_events.extend(its)
            raise


def requested(means: Means, **terms: Any) -> Payment:
    """A new payment that is about to ask the bank for what `means` can give: a hold, or a transfer."""
    match means:
        case Card():
            return Payment.request_authorization(card=means.face(), **terms)
        case BankAccount():
            return Payment.request_transfer(account=means.face(), **terms)


def order_id_in(metadata: Metadata) -> str | None:
    """The order that the merchant says it is for."""
    order_id = metadata.get(ORDER_ID)
    return str(order_id)[:LONGEST_ORDER_ID] if order_id not in (None, "") else None


def replayed(payment: Payment | None, history: Iterable[Payment.Event]) -> Payment | None:
    """The payment after `history`. As the library's own projector, which asks of every event whether
    it is one, at twice the price of all the rest."""
    for event in history:
        payment = event.mutate(payment)
    return payment


def _bank_key(payment: Payment, running: RunningOperation) -> str:
    return bank_key(payment.id, running.operation, running.number)


def _bank_id(payment: Payment, operation: Operation) -> str | None:
    """What is to be captured, released, refunded or, where a shopper is waited for, looked at."""
    match operation:
        case Operation.AUTHORIZATION:
            return payment.awaited_authorization_id
        case Operation.TRANSFER:
            return payment.awaited_transfer_id
        case Operation.CAPTURE | Operation.VOID:
            return payment.authorization_id or payment.awaited_authorization_id
        case Operation.REFUND:
            return payment.capture_id


def _claimed(command: Command, payment: Payment) -> list[Record]:
    """The command's idempotency key, taken until there is an answer."""
    if command.claim is None:
        return []
    request_id = command.cause.request_id
    assert request_id is not None
    return [ClaimKey(claim=command.claim, payment_id=payment.id, request_id=request_id)]


def _ended(call: BankCall, answer: StoredAnswer) -> list[Record]:
    """The call has its outcome, and whoever asked has an answer."""
    keys = [key for key in (call.cause.idempotency_key, call.superseded_key) if key is not None]
    answered = [AnswerKey(tenant=call.tenant, key=key, answer=answer) for key in keys]
    return [EndCall(call=call), *answered]


def _used_cvc(payment: Payment, call: BankCall) -> list[Record]:
    """The CVC of a card on file, which is kept for one authorization."""
    authorizes = call.operation == Operation.AUTHORIZATION or payment.is_given_up
    if not authorizes or payment.payment_method_id is None:
        return []
    try:
        method_id = decode(Prefix.PAYMENT_METHOD, payment.payment_method_id)
    except MalformedId:  # a test token's name
        return []
    return [ForgetCard(method_id=method_id, cvc_only=True)]


def _freed_slot(payment: Payment, *, was_live: bool) -> list[Record]:
    """The order's slot, where the payment had it and is live no more."""
    if not was_live or payment.status in LIVE or payment.order_id is None:
        return []
    return [FreeOrderSlot(tenant=payment.tenant, order_id=payment.order_id, payment_id=payment.id)]


def _is_too_late_to_repeat(payment: Payment, call: BankCall) -> bool:
    """Whether the bank may have done it, may have forgotten that, and would do it once more: another
    hold, or another part given back. All else it does once, under whatever key."""
    assert payment.running is not None
    is_part = payment.running.amount_minor < payment.captured_minor
    again = call.operation == Operation.AUTHORIZATION or (
        call.operation == Operation.REFUND and is_part
    )
    return again and call.age_seconds > REPEATED_FOR_SECONDS and _attempts_at_the_bank(call) > 0


def _attempts_at_the_bank(call: BankCall) -> int:
    """The earlier attempts, unless the bank cannot know of any."""
    return call.attempts if call.reached or call.unanswered > 0 else 0
