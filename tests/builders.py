"""Test data, made here and nowhere else: say what matters to the test, the rest has a default."""

import contextlib
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final, Self
from uuid import UUID

from hypothesis import strategies as st

from domain import resolution
from domain.accounts import BankAccount
from domain.bank import (
    AlreadyDone,
    Approved,
    BankCapabilities,
    BankRequest,
    Contradicted,
    Declined,
    Operation,
    Outcome,
    Rejected,
)
from domain.cards import Card
from domain.commands import (
    Audience,
    AuthorizePayment,
    CancelIntent,
    CapturePayment,
    Cause,
    Claim,
    ConfirmIntent,
    Instrument,
    MakePayment,
    Mode,
    RefundPayment,
    ResolvePayment,
    Tenant,
    VoidPayment,
)
from domain.dispute import DisputeNotice, DisputeStatus
from domain.errors import DomainError
from domain.ids import Prefix, encode, uuid7
from domain.invoice import Invoice
from domain.money import Money
from domain.payment import (
    COMMANDS_BY_STATUS,
    Difference,
    DifferenceKind,
    Origin,
    Payment,
    Status,
    bank_key,
)
from domain.payment_intent import PaymentIntent, Terms
from domain.records import BankCall
from domain.subscription import Plan, Subscription

NOON: Final = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)
FAR_DEADLINE: Final = 1e9
FULL_AMOUNTS: Final = BankCapabilities(
    currencies=frozenset({"USD"}), partial_amounts=False, cvc_optional=False
)
ANY_AMOUNT: Final = BankCapabilities(
    currencies=None,
    partial_amounts=True,
    cvc_optional=True,
    three_d_secure=True,
    bank_transfers=True,
    disputes=True,
)

VISA: Final = "4111111111111111"
SMALL_VISA: Final = "4242424242424242"
EMPTY_MASTERCARD: Final = "5555555555554444"
EXPIRED_MASTERCARD: Final = "5105105105105100"
CHALLENGED_VISA: Final = "4000002500003155"
ACCOUNT_NUMBER: Final = "12345678"
UNKNOWN_VISA: Final = "4012888888881881"

_numbers = count(1)


def an_id(number: int | None = None, *, shard: int | None = None) -> UUID:
    """A UUID of version 7: the same for the same `number`, else one that was not made before."""
    low = next(_numbers) if number is None else number
    last_byte = low % 64 if shard is None else shard
    return uuid7(unix_milliseconds=1_795_176_000_000, random_bits=(low << 8) | last_byte)


def a_tenant(merchant_id: str = "mer_ficmart", mode: Mode = Mode.TEST) -> Tenant:
    return Tenant(merchant_id, mode)


def a_new_tenant() -> Tenant:
    """One that was not made before."""
    return a_tenant(encode(Prefix.MERCHANT, an_id()))


def a_card(**overrides: Any) -> Card:
    """The bank's happy-path card."""
    fields: dict[str, Any] = {"number": VISA, "exp_month": 12, "exp_year": 2030, "cvc": "123"}
    return Card(**(fields | overrides))


def a_small_card() -> Card:
    """A card with 500.00 on it."""
    return a_card(number=SMALL_VISA, cvc="456", exp_month=6)


def an_empty_card() -> Card:
    """A card that the bank declines for want of funds."""
    return a_card(number=EMPTY_MASTERCARD, cvc="789", exp_month=9)


def a_challenged_card() -> Card:
    """A card whose holder has to approve at a page of the bank's, where the bank has any."""
    return a_card(number=CHALLENGED_VISA)


def dollars(amount: int) -> Money:
    return Money(amount * 100, "USD")


def a_cause(key: str | None = None) -> Cause:
    return Cause(actor="key_1", request_id="req_1", idempotency_key=key)


def a_claim(key: str = "key-1", **overrides: Any) -> Claim:
    fields: dict[str, Any] = {"tenant": a_tenant(), "key": key, "fingerprint": b"fingerprint"}
    return Claim(**(fields | overrides))


def _carried(key: str | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """What every command carries; with a `key`, the claim on it."""
    tenant = overrides.get("tenant", a_tenant())
    return {
        "tenant": tenant,
        "cause": a_cause(key),
        "audience": Audience(family="gateway"),
        "deadline": FAR_DEADLINE,
        "claim": None if key is None else a_claim(key, tenant=tenant),
    }


def authorize(key: str | None = None, **overrides: Any) -> AuthorizePayment:
    fields = _carried(key, overrides) | {
        "order_id": "ORD-1001",
        "customer_id": "cus_123",
        "money": dollars(50),
        "card": a_card(),
    }
    return AuthorizePayment(**(fields | overrides))


def make_payment(key: str | None = None, **overrides: Any) -> MakePayment:
    """By a transfer, unless other `means` are given."""
    fields = _carried(key, overrides) | {
        "customer_id": None,
        "money": dollars(50),
        "means": an_account(),
        "fingerprint": "0f0f0f0f0f0f0f0f",
    }
    return MakePayment(**(fields | overrides))


def capture(payment_id: UUID, key: str | None = None, **overrides: Any) -> CapturePayment:
    return CapturePayment(**(_carried(key, overrides) | {"payment_id": payment_id} | overrides))


def void(payment_id: UUID, key: str | None = None, **overrides: Any) -> VoidPayment:
    return VoidPayment(**(_carried(key, overrides) | {"payment_id": payment_id} | overrides))


def refund(payment_id: UUID, key: str | None = None, **overrides: Any) -> RefundPayment:
    return RefundPayment(**(_carried(key, overrides) | {"payment_id": payment_id} | overrides))


def an_intent(intent_id: UUID, **overrides: Any) -> PaymentIntent:
    """What a merchant wants to be paid: `overrides` are of its terms."""
    fields: dict[str, Any] = {"money": dollars(50), "metadata": {}} | overrides
    terms = Terms(**fields)
    return PaymentIntent.create(
        intent_id=intent_id, tenant=a_tenant(), family="gateway", terms=terms, at=NOON
    )


def confirm(intent_id: UUID, key: str | None = None, **overrides: Any) -> ConfirmIntent:
    paid_with = Instrument(method_id="pm_fake", means=a_challenged_card(), fingerprint="f")
    fields = _carried(key, overrides) | {"intent_id": intent_id, "instrument": paid_with}
    return ConfirmIntent(**(fields | overrides))


def cancel(intent_id: UUID, key: str | None = None, **overrides: Any) -> CancelIntent:
    return CancelIntent(**(_carried(key, overrides) | {"intent_id": intent_id} | overrides))


def resolve(
    payment_id: UUID, status: Status, bank_id: str | None = None, **overrides: Any
) -> ResolvePayment:
    """An operator's decision."""
    fields: dict[str, Any] = {
        "tenant": a_tenant(),
        "cause": Cause(actor="ada"),
        "payment_id": payment_id,
        "status": status,
        "bank_id": bank_id,
        "reason": "The bank's back office found it.",
    }
    return ResolvePayment(**(fields | overrides))


def a_bank_request(operation: Operation = Operation.AUTHORIZATION, **overrides: Any) -> BankRequest:
    """What the ledger puts to the bank; `bank_id` has to be given for all but an authorization."""
    fields: dict[str, Any] = {
        "operation": operation,
        "key": f"pay-{next(_numbers)}-{operation}-1",
        "money": dollars(50),
        "card": a_card() if operation == Operation.AUTHORIZATION else None,
        "account": an_account() if operation == Operation.TRANSFER else None,
        "seconds_left": 9.5,
    }
    return BankRequest(**(fields | overrides))


def a_bank_call(payment: Payment, **overrides: Any) -> BankCall:
    """The outstanding call of the operation that `payment` has running."""
    assert payment.running is not None
    fields: dict[str, Any] = {
        "payment_id": payment.id,
        "tenant": payment.tenant,
        "operation": payment.running.operation,
        "bank_key": f"{payment.id}-{payment.running.operation}-{payment.running.number}",
        "cause": a_cause(),
        "audience": Audience(family="gateway"),
    }
    return BankCall(**(fields | overrides))


def a_payment(**overrides: Any) -> Payment:
    """A payment that has asked the bank for a hold."""
    fields: dict[str, Any] = {
        "payment_id": an_id(),
        "tenant": a_tenant(),
        "order_id": "ORD-1001",
        "customer_id": "cus_123",
        "money": dollars(50),
        "card": a_card().face(),
        "metadata": {"basket": "b-1"},
        "at": NOON,
    }
    return Payment.request_authorization(**(fields | overrides))


def an_account(**overrides: Any) -> BankAccount:
    """An account from which the money comes."""
    fields: dict[str, Any] = {
        "number": ACCOUNT_NUMBER,
        "sort_code": "123456",
        "holder_name": "Ada Lovelace",
    }
    return BankAccount(**(fields | overrides))


def a_transfer(**overrides: Any) -> Payment:
    """A payment that has asked the bank for money from another one."""
    fields: dict[str, Any] = {
        "payment_id": an_id(),
        "tenant": a_tenant(),
        "order_id": None,
        "customer_id": "cus_123",
        "money": dollars(50),
        "account": an_account().face(),
        "metadata": {},
        "at": NOON,
        "origin": Origin(card_fingerprint="0f", description="Two books"),
    }
    return Payment.request_transfer(**(fields | overrides))


def an_approval(bank_id: str = "auth_1", **overrides: Any) -> Approved:
    return Approved(bank_id=bank_id, **overrides)


@dataclass
class Story:
    """The life of one payment, told step by step; each step is a second after the one before."""

    payment: Payment = field(default_factory=a_payment)
    bank: BankCapabilities = ANY_AMOUNT
    at: datetime = NOON

    def asked_to_capture(self, amount_minor: int | None = None) -> Self:
        self.payment.request_capture(amount_minor, self.bank, at=self._next())
        return self

    def asked_to_void(self) -> Self:
        self.payment.request_void(at=self._next())
        return self

    def asked_to_release(self) -> Self:
        """By the sweep, because the hold ran out."""
        self.payment.trigger_event(Payment.VoidRequested, on_expiry=True, timestamp=self._next())
        return self

    def asked_to_refund(self, amount_minor: int | None = None, **overrides: Any) -> Self:
        fields: dict[str, Any] = {"reason": None, "metadata": {}}
        self.payment.request_refund(
            overrides.pop("refund_id", None) or encode(Prefix.REFUND, an_id()),
            amount_minor,
            self.bank,
            at=self._next(),
            **(fields | overrides),
        )
        return self

    def answered(self, answer: Outcome, *, attempts: int = 0, unanswered: bool = False) -> Self:
        self.payment.settle(
            answer, attempts_before=attempts, unanswered_before=unanswered, at=self._next()
        )
        return self

    def accepted(self) -> Self:
        """By the bank, which has asked the other one."""
        self.payment.accept_transfer("trf_1", at=self._next())
        return self

    def transferred(self) -> Self:
        return self.answered(an_approval("trf_1"))

    def challenged(self, *, maybe_held: bool = False) -> Self:
        """The shopper has to approve."""
        url = "https://bank.test/challenges/auth_1"
        self.payment.require_action("auth_1", url, maybe_held=maybe_held, at=self._next())
        return self

    def authorized(self) -> Self:
        return self.answered(an_approval("auth_1", expires_at=NOON + timedelta(days=7)))

    def declined(self, code: str = "insufficient_funds") -> Self:
        return self.answered(Declined(code=code))

    def captured(self, amount_minor: int | None = None) -> Self:
        return self.asked_to_capture(amount_minor).answered(an_approval("cap_1"))

    def voided(self) -> Self:
        return self.asked_to_void().answered(an_approval("void_1"))

    def expired(self) -> Self:
        return self.asked_to_release().answered(an_approval("void_1"))

    def refund_noted(self) -> Self:
        """The merchant says something else about its refund."""
        (refund_id, *_) = self.payment.refunds_metadata
        self.payment.update_refund(refund_id, {"ticket": "T-10"}, at=self._next())
        return self

    def refunded(self, amount_minor: int | None = None) -> Self:
        bank_id = f"ref_{self.payment.version}"
        return self.asked_to_refund(amount_minor).answered(an_approval(bank_id))

    def capture_lost(self) -> Self:
        """Captured, and the bank forgot under which id."""
        already = AlreadyDone(code="authorization_already_used", after_attempts=0)
        return self.asked_to_capture().answered(already, attempts=1)

    def differing(self, kind: DifferenceKind = DifferenceKind.AMOUNT, ours: str = "5000") -> Self:
        """From the bank's record."""
        difference = Difference(kind=kind, ours=ours, bank="4000")
        self.payment.note_difference(difference, at=self._next())
        return self

    def resolved(self, status: Status, bank_id: str | None = None, **overrides: Any) -> Self:
        found = resolve(self.payment.id, status, bank_id, **overrides)
        new_refund_id = encode(Prefix.REFUND, an_id())
        resolution.resolve(self.payment, found, refund_id=new_refund_id, at=self._next())
        return self

    def disputed(
        self,
        status: DisputeStatus = DisputeStatus.NEEDS_RESPONSE,
        amount_minor: int | None = None,
        bank_id: str = "dsp_1",
    ) -> Self:
        """The bank tells of it, as it stands."""
        amount = self.payment.captured_minor if amount_minor is None else amount_minor
        notice = a_notice(self.payment, status=status, amount_minor=amount, bank_dispute_id=bank_id)
        dispute_id = encode(Prefix.DISPUTE, an_id())
        self.payment.note_dispute(notice, dispute_id, at=self._next())
        return self

    def answered_dispute(self, *, submits: bool = False) -> Self:
        (dispute_id,) = self.payment.disputes
        said: dict[str, Any] = {"fields": ["receipt"], "metadata": {}, "is_submitted": submits}
        self.payment.give_evidence(dispute_id, at=self._next(), **said)
        return self

    def gave_up_dispute(self) -> Self:
        (dispute_id,) = self.payment.disputes
        self.payment.accept_dispute(dispute_id, at=self._next())
        return self

    def _next(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at


def a_notice(payment: Payment, **overrides: Any) -> DisputeNotice:
    fields: dict[str, Any] = {
        "position": 1,
        "bank_dispute_id": "dsp_1",
        "bank_capture_id": "cap_1",
        "capture_key": bank_key(payment.id, Operation.CAPTURE, 3),
        "amount_minor": payment.captured_minor,
        "reason": "fraudulent",
        "status": DisputeStatus.NEEDS_RESPONSE,
        "evidence_due_by": NOON + timedelta(days=9),
    }
    return DisputeNotice(**fields | overrides)


def a_subscription(plan: Plan, **overrides: Any) -> Subscription:
    """Without a period yet."""
    fields: dict[str, Any] = {
        "subscription_id": an_id(),
        "tenant": a_tenant(),
        "customer_id": "cus_1",
        "payment_method_id": "pm_card_visa",
        "description": None,
        "metadata": {},
        "cancel_at_period_end": False,
        "clock_id": None,
        "anchor": NOON,
        "at": NOON,
    }
    return Subscription.create(plan=plan, **fields | overrides)


def an_invoice(subscription: Subscription, **overrides: Any) -> Invoice:
    """Of its first period."""
    fields: dict[str, Any] = {
        "invoice_id": an_id(),
        "tenant": subscription.tenant,
        "subscription_id": subscription.id,
        "customer_id": subscription.customer_id,
        "money": subscription.plan.money,
        "period": subscription.period(0),
        "is_first": True,
        "clock_id": subscription.clock_id,
        "when": NOON,
        "at": NOON,
    }
    return Invoice.create(**fields | overrides)


def a_payment_that_is(status: Status) -> Payment:
    """A payment in `status` with nothing running, but for the first, which asks for its hold."""
    story = Story()
    match status:
        case Status.PENDING:
            pass
        case Status.AUTHORIZED:
            story.authorized()
        case Status.CAPTURED:
            story.authorized().captured()
        case Status.REFUNDED:
            story.authorized().captured().refunded()
        case Status.VOIDED:
            story.authorized().voided()
        case Status.DECLINED:
            story.declined()
        case Status.EXPIRED:
            story.authorized().expired()
    return story.payment


def answers() -> st.SearchStrategy[Outcome]:
    """Whatever a bank may say, sensible or not."""
    return st.one_of(
        st.builds(an_approval, st.sampled_from(["id_1", "id_2"]), replayed=st.booleans()),
        st.builds(Declined, code=st.sampled_from(["insufficient_funds", "authorization_expired"])),
        st.builds(
            AlreadyDone,
            code=st.just("authorization_already_used"),
            after_attempts=st.integers(0, 2),
        ),
        st.builds(Rejected, reason=st.just("invalid_amount")),
        st.builds(Contradicted, reason=st.just("HTTP 400 authorization_not_found")),
    )


@st.composite
def lives(draw: st.DrawFn) -> Payment:
    """Payments after any number of commands and any answers of the bank."""
    story = Story(a_payment(metadata=draw(st.sampled_from([{}, {"n": 1, "vip": True}]))))
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.integers(0, 4)) == 0:
            draw(_looked_into(story))
        elif _is_new(story.payment) and draw(st.integers(0, 3)) == 0:
            story.challenged(maybe_held=draw(st.booleans()))
        elif story.payment.running is not None:
            story.answered(
                draw(answers()), attempts=draw(st.integers(0, 2)), unanswered=draw(st.booleans())
            )
        elif not draw(_asked(story)):
            break
    return story.payment


def _is_new(payment: Payment) -> bool:
    """Whether it asks for its hold, and its shopper was not asked to approve."""
    return payment.status is Status.PENDING and payment.action_url is None


@st.composite
def _asked(draw: st.DrawFn, story: Story) -> bool:
    """Asks for something that the payment's state allows; False where it allows nothing."""
    status = story.payment.status
    allowed = [op for op, by_status in COMMANDS_BY_STATUS.items() if not by_status[status]]
    if not allowed:
        return False
    amount = draw(st.one_of(st.none(), st.integers(1, 5000)))
    try:
        match draw(st.sampled_from(allowed)):
            case Operation.CAPTURE:
                story.asked_to_capture(amount)
            case Operation.VOID:
                draw(st.sampled_from([story.asked_to_void, story.asked_to_release]))()
            case _:
                story.asked_to_refund(amount, refund_id=draw(_refund_ids()))
    except DomainError:
        return False
    return True


@st.composite
def _looked_into(draw: st.DrawFn, story: Story) -> None:
    """By a person, or by a look at the bank's records; nothing comes of what cannot be."""
    with contextlib.suppress(DomainError):
        if draw(st.booleans()):
            story.differing(draw(st.sampled_from(DifferenceKind)), draw(st.sampled_from("12")))
        else:
            kind = draw(st.sampled_from(["auth", "cap", "void", "ref"]))
            bank_id = draw(st.one_of(st.none(), st.integers(1, 9).map(lambda n: f"{kind}_{n}")))
            amount = draw(st.one_of(st.none(), st.integers(1, 5000)))
            trial = deepcopy(story)  # what is refused leaves a payment that is not to be used
            trial.resolved(draw(st.sampled_from(Status)), bank_id, amount_minor=amount)
            story.payment, story.at = trial.payment, trial.at


def _refund_ids() -> st.SearchStrategy[str]:
    prefixes = st.sampled_from([Prefix.REFUND, Prefix.CHARGE_REFUND])
    return prefixes.map(lambda prefix: encode(prefix, an_id()))
