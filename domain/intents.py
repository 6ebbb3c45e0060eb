"""What is done with payment intents: each command decides on the intent and its latest payment, and
begins on both in one transaction, since they are in one shard. The rest is the ledger's."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError
from eventsourcing.domain import Aggregate

from domain.accounts import BankAccount, Means
from domain.cards import Card
from domain.commands import (
    CancelIntent,
    CaptureIntent,
    Command,
    ConfirmIntent,
    Tenant,
)
from domain.errors import (
    ConcurrentChange,
    IntentNotFound,
    IntentStateConflict,
    SourceTypeUnsupported,
)
from domain.ids import Prefix, beside, encode
from domain.ledger import (
    DECIDE_ATTEMPTS,
    PaymentLedger,
    Pending,
    Reply,
    Settled,
    order_id_in,
    requested,
)
from domain.payment import CaptureMethod, Origin, Payment
from domain.payment_intent import Attempt, PaymentIntent
from domain.payment_method import ACCOUNT, CARD
from domain.records import BankCall, Record, StoredAnswer, claimed_by

Done = TypeVar("Done")
# What is recorded beside an attempt, by the intent and the payment that it is.
Beside = Callable[[PaymentIntent, Payment], Sequence[Record]]


class PaymentIntents:
    """The commands on payment intents. Refusals are DomainErrors, and leave nothing behind."""

    def __init__(self, ledger: PaymentLedger) -> None:
        self._ledger = ledger

    def intent(self, intent_id: UUID, tenant: Tenant) -> PaymentIntent:
        """The intent as it is. Raises IntentNotFound, also for another's."""
        try:
            intent: object = self._ledger.repository.get(intent_id)
        except AggregateNotFoundError as error:
            raise IntentNotFound("There is no such payment intent.") from error
        if not isinstance(intent, PaymentIntent) or intent.tenant != tenant:
            raise IntentNotFound("There is no such payment intent.")
        return intent

    def unconfirmed(self, intent_id: UUID, tenant: Tenant) -> PaymentIntent:
        """The intent, of which no attempt was made yet. Raises IntentNotFound, IntentStateConflict."""
        intent = self.intent(intent_id, tenant)
        last = self.last_payment(intent)
        _refuse_confirmed(intent, None if last is None else Attempt.of(last))
        return intent

    def last_payment(self, intent: PaymentIntent) -> Payment | None:
        """The payment of the last attempt."""
        if not intent.attempts:
            return None
        return self._ledger.payment(intent.attempts[-1], intent.tenant)

    def last_attempt(self, intent: PaymentIntent) -> Attempt | None:
        """How the last attempt stands."""
        last = self.last_payment(intent)
        return None if last is None else Attempt.of(last)

    def confirm(
        self,
        command: ConfirmIntent,
        intent: PaymentIntent | None = None,
        *records: Record,
        made: Sequence[Aggregate] = (),
    ) -> Reply:
        """Makes an attempt. `intent`: a new one, which is recorded with it, or as it was read a moment
        ago. `records` are beside it, as is what was `made` on the way, in the same shard. Raises
        IntentNotFound, IntentStateConflict, CurrencyUnsupported, CardRefused, SourceTypeUnsupported,
        BankUnavailable."""
        ledger, means = self._ledger, command.instrument.means
        if isinstance(means, Card):
            means.check(ledger.clock.now())
        payment, call = ledger.begun_if_admitted(
            lambda: self._begun_on(command, intent, lambda *_: records, made)
        )
        if command.starts_in_seconds is not None:
            ledger.bank.was_not_begun()
            return Pending(call=call, history=payment.history)
        return ledger.finish(payment, call, command, means=means)

    def confirm_transfer(
        self,
        command: ConfirmIntent,
        intent: PaymentIntent | None,
        *records: Record,
        made: Sequence[Aggregate],
        answer: Callable[[PaymentIntent, Payment], StoredAnswer],
    ) -> Settled:
        """The same by an account at another bank, for which nobody waits: the command has its answer at
        once, which is what `answer` gives, and a worker makes the attempt."""
        told: list[StoredAnswer] = []

        def beside(intent: PaymentIntent, payment: Payment) -> Sequence[Record]:
            told.append(answer(intent, payment))
            return [*claimed_by(command.claim, command.cause, intent.id, told[-1]), *records]

        later = replace(command, claim=None, starts_in_seconds=0.0)
        payment, _ = self._ledger.begun_if_admitted(
            lambda: self._begun_on(later, intent, beside, made)
        )
        self._ledger.bank.was_not_begun()  # by this request
        return Settled(answer=told[-1], history=payment.history)

    def _begun_on(
        self,
        command: ConfirmIntent,
        known: PaymentIntent | None,
        records: Beside,
        made: Sequence[Aggregate],
    ) -> tuple[Payment, BankCall]:
        """Begins on the intent that is known; on one that changed meanwhile as on one that is not."""
        is_new = known is not None and bool(known.pending_events)
        if known is not None:
            try:
                return self._begun(command, known, records, made)
            except ConcurrentChange:
                if is_new:
                    raise
        return _decided(
            lambda: self._begun(
                command, self.intent(command.intent_id, command.tenant), records, made
            )
        )

    def _begun(
        self,
        command: ConfirmIntent,
        intent: PaymentIntent,
        records: Beside,
        made: Sequence[Aggregate],
    ) -> tuple[Payment, BankCall]:
        instrument = command.instrument
        self._ledger.refuse_unless_taken(intent.terms.money, instrument.means)
        last = self.last_payment(intent)
        before = None if last is None else Attempt.of(last)
        if command.once_only:
            _refuse_confirmed(intent, before)
        at = self._ledger.clock.now()
        payment_id = beside(self._ledger.ids.new(), intent.id)
        if command.capture_method is not None:
            terms = replace(intent.terms, capture_method=command.capture_method)
            intent.update(terms, before, at=at)
        _refuse_unless_fit(intent, instrument.means)
        intent.begin_attempt(payment_id, instrument.method_id, before, at=at)
        payment = _attempted(command, intent, payment_id, at)
        call = self._ledger.begin(
            payment,
            command,
            *records(intent, payment),
            means=instrument.means,
            others=(intent, *made),
            starts_in_seconds=command.starts_in_seconds,
        )
        return payment, call

    def capture(self, command: CaptureIntent) -> Reply:
        """Takes what is held. Raises IntentNotFound, IntentStateConflict, and what
        `Payment.request_capture` raises."""

        def attempt() -> tuple[Payment, BankCall]:
            intent, payment = self._with_payment(command, command.intent_id, "capture")
            assert payment is not None, "there is a hold"
            at = self._ledger.clock.now()
            payment.request_capture(command.amount_minor, self._ledger.bank.capabilities, at=at)
            intent.say(command.changes, at=at)
            return payment, self._ledger.begin(payment, command, others=(intent,))

        payment, call = _decided(attempt)
        return self._ledger.finish(payment, call, command)

    def cancel(
        self,
        command: CancelIntent,
        answer: Callable[[PaymentIntent, Payment | None], StoredAnswer],
    ) -> Reply | StoredAnswer:
        """Gives it up; where nothing is held and nobody waited for, without the bank, under the answer
        that `answer` gives. Raises IntentNotFound, IntentStateConflict."""
        ledger = self._ledger

        def attempt() -> StoredAnswer | tuple[Payment, BankCall]:
            intent, payment = self._with_payment(command, command.intent_id, "cancel")
            at = ledger.clock.now()
            last = None if payment is None else Attempt.of(payment)
            intent.cancel(command.reason, last, at=at)
            if payment is not None and payment.action_url is not None:
                payment.request_withdrawal(at=at)
                return payment, ledger.take_over(payment, command, others=(intent,))
            if payment is not None and payment.authorization_id is not None:
                payment.request_void(at=at)
                return payment, ledger.begin(payment, command, others=(intent,))
            stored = answer(intent, payment)
            claims = claimed_by(command.claim, command.cause, intent.id, stored)
            ledger.record((intent,), command.cause, claims)
            return stored

        begun = _decided(attempt)
        if isinstance(begun, StoredAnswer):
            return begun
        payment, call = begun
        return self._ledger.finish(payment, call, command)

    def _with_payment(
        self, command: Command, intent_id: UUID, name: str
    ) -> tuple[PaymentIntent, Payment | None]:
        intent = self.intent(intent_id, command.tenant)
        payment = self.last_payment(intent)
        intent.refuse_unless_allowed(name, None if payment is None else Attempt.of(payment))
        return intent, payment


def _refuse_confirmed(intent: PaymentIntent, last: Attempt | None) -> None:
    """Raises IntentStateConflict, also where another attempt might be made."""
    intent.refuse_unless_allowed("confirm", last)
    if last is not None:
        raise IntentStateConflict(
            "The payment intent was confirmed before.", status=intent.status(last).value
        )


def _refuse_unless_fit(intent: PaymentIntent, means: Means) -> None:
    """Raises SourceTypeUnsupported for what is not to be paid with, and for money that comes all at once
    and is to be held."""
    kind = ACCOUNT if isinstance(means, BankAccount) else CARD
    if kind not in intent.terms.payment_method_types:
        raise SourceTypeUnsupported(
            f"The payment intent is not to be paid with {kind}: its payment_method_types say so.",
            param="payment_method",
            code="payment_method_type_unsupported",
        )
    if isinstance(means, BankAccount) and intent.terms.capture_method is CaptureMethod.MANUAL:
        raise SourceTypeUnsupported(
            "A bank transfer cannot be held: use capture_method automatic.", param="capture_method"
        )


def _attempted(
    command: ConfirmIntent, intent: PaymentIntent, payment_id: UUID, at: datetime
) -> Payment:
    """The payment that an attempt is."""
    terms, instrument = intent.terms, command.instrument
    return requested(
        instrument.means,
        payment_id=payment_id,
        tenant=command.tenant,
        order_id=order_id_in(terms.metadata),
        customer_id=terms.customer_id,
        money=terms.money,
        metadata=terms.metadata,
        at=at,
        origin=Origin(
            intent_id=encode(Prefix.INTENT, intent.id),
            payment_method_id=instrument.method_id,
            card_fingerprint=instrument.fingerprint,
            capture_method=terms.capture_method,
            description=terms.description,
            test_outcome=command.test_outcome,
        ),
    )


def _decided(attempt: Callable[[], Done]) -> Done:
    """Decides on things as they are; decides again if they changed meanwhile."""
    for _ in range(DECIDE_ATTEMPTS - 1):
        try:
            return attempt()
        except ConcurrentChange:
            continue
    return attempt()
