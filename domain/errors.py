"""Refusals: we said no. Each states the broken rule and has a stable `code`.

`api.errors` maps codes to HTTP statuses; nothing here knows of HTTP.
"""

from enum import StrEnum
from typing import ClassVar


class Refusal(StrEnum):
    """The family of a refusal, which decides how it is told."""

    INVALID = "invalid"  # the request could never be right
    CONFLICT = "conflict"  # right, but not in this state
    MISSING = "missing"  # what it names is not there, or is another's
    CARD = "card"  # the card can be told to be no good without the bank
    UNAVAILABLE = "unavailable"  # right, but we cannot begin it now


class DomainError(Exception):
    """A rule of the ledger was broken. `param` names the field, where one is to blame."""

    refusal: ClassVar[Refusal] = Refusal.INVALID
    code: str = "invalid_param"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code


class PaymentStateConflict(DomainError):
    """The payment's state does not allow the command; `code` says which state and which command."""

    refusal = Refusal.CONFLICT


class OperationInProgress(PaymentStateConflict):
    """Another command of the payment has no outcome yet."""

    code = "operation_in_progress"


class NothingToResolve(PaymentStateConflict):
    """The payment's state is certain: nothing is outstanding, and no review is due."""

    code = "nothing_to_resolve"


class ResolutionRefused(PaymentStateConflict):
    """What an operator found cannot have become of the payment, or does not say enough."""

    code = "resolution_refused"


class BankIdRefused(DomainError):
    """The bank's id is missing, or is of another kind, or of something else."""

    code = "bank_id_refused"


class OrderAlreadyPaid(DomainError):
    """The order has a payment that is pending, authorized or captured."""

    refusal = Refusal.CONFLICT
    code = "order_already_paid"


class RefundExceedsPayment(DomainError):
    """More would be given back than was taken."""

    refusal = Refusal.CONFLICT
    code = "refund_exceeds_payment"


class AmountTooSmall(DomainError):
    """Nothing, or less, would be moved."""

    code = "amount_too_small"


class AmountTooLarge(DomainError):
    """More would be captured than is held."""

    code = "amount_too_large"


class PartialAmountUnsupported(DomainError):
    """The bank in use captures and refunds full amounts only."""

    code = "partial_amount_unsupported"


class CurrencyUnsupported(DomainError):
    """The bank in use does not take this currency."""

    code = "currency_unsupported"


class CardsOnFileUnsupported(DomainError):
    """The bank in use takes no card without its CVC, which is not kept."""

    code = "cards_on_file_unsupported"


class CardRefused(DomainError):
    """The number or the expiry is no good, which needs no bank to tell."""

    refusal = Refusal.CARD


class NotFound(DomainError):
    """Unknown, malformed, of another kind, or another merchant's: all the same to the caller."""

    refusal = Refusal.MISSING


class PaymentNotFound(NotFound):
    """There is no such payment for this merchant in this mode."""

    code = "payment_not_found"


class RefundNotFound(NotFound):
    """There is no such refund for this merchant in this mode."""

    code = "refund_not_found"


class DisputeNotFound(NotFound):
    """There is no such dispute for this merchant in this mode."""

    code = "dispute_not_found"


class OrderNotFound(NotFound):
    """No payment was ever asked for under this order id."""

    code = "order_not_found"


class PaymentMethodNotFound(NotFound):
    """There is no such payment method for this merchant in this mode."""

    code = "payment_method_not_found"


class TokenNotFound(NotFound):
    """There is no such token for this merchant in this mode."""

    code = "token_not_found"


class TokenAlreadyUsed(DomainError):
    """A token is good for one use."""

    code = "token_already_used"


class TokenExpired(DomainError):
    """The token was not used in time, and its card is not kept any longer."""

    code = "token_expired"


class SourceTypeUnsupported(DomainError):
    """The bank in use does not take money in this way."""

    code = "source_type_unsupported"


class BankUnavailable(DomainError):
    """The bank is down, so that nothing new is begun with it."""

    refusal = Refusal.UNAVAILABLE
    code = "bank_unavailable"


class PaymentMethodStateConflict(DomainError):
    """The payment method is another customer's, or was detached for good."""

    refusal = Refusal.CONFLICT


class CustomerNotFound(NotFound):
    """There is no such customer for this merchant in this mode."""

    code = "customer_not_found"


class EventNotFound(NotFound):
    """There is no such published event for this merchant in this mode."""

    code = "event_not_found"


class BalanceTransactionNotFound(NotFound):
    """There is no such balance transaction for this merchant in this mode."""

    code = "balance_transaction_not_found"


class WebhookEndpointNotFound(NotFound):
    """There is no such webhook endpoint for this merchant in this mode."""

    code = "webhook_endpoint_not_found"


class WebhookDeliveryNotFound(NotFound):
    """There is no such delivery to this endpoint."""

    code = "webhook_delivery_not_found"


class WebhookEndpointDisabled(DomainError):
    """Nothing is sent to an endpoint that is disabled."""

    refusal = Refusal.CONFLICT
    code = "webhook_endpoint_disabled"


class TooManyWebhookEndpoints(DomainError):
    """The merchant has as many endpoints in this mode as there may be."""

    code = "too_many_webhook_endpoints"


class IntentNotFound(NotFound):
    """There is no such payment intent for this merchant in this mode."""

    code = "payment_intent_not_found"


class IntentStateConflict(DomainError):
    """The intent's status, which `status` names, does not allow the command."""

    refusal = Refusal.CONFLICT
    code = "payment_intent_unexpected_state"

    def __init__(self, message: str, *, status: str) -> None:
        super().__init__(message)
        self.status = status


class SubscriptionNotFound(NotFound):
    """There is no such subscription for this merchant in this mode."""

    code = "subscription_not_found"


class SubscriptionStateConflict(DomainError):
    """The subscription has ended, or it is not time."""

    refusal = Refusal.CONFLICT


class InvoiceNotFound(NotFound):
    """There is no such invoice for this merchant in this mode."""

    code = "invoice_not_found"


class InvoiceStateConflict(DomainError):
    """The invoice is paid or void, or being paid."""

    refusal = Refusal.CONFLICT


class TestClockNotFound(NotFound):
    """There is no such clock for this merchant in test mode."""

    code = "test_clock_not_found"


class CheckpointNotFound(NotFound):
    """Nothing was signed yet."""

    code = "checkpoint_not_found"


class PositionNotFound(NotFound):
    """No signed checkpoint covers so much of the log."""

    code = "position_not_found"


class KeyAlreadyClaimed(Exception):
    """The idempotency key was claimed by another request, perhaps a moment ago. Never told as such:
    the caller looks the claim up and replays, waits or refuses."""


class ConcurrentChange(Exception):
    """Another process recorded an event of the same aggregate first. Nothing was recorded."""


class StoreUnavailable(Exception):
    """The store cannot be reached, or not in time. Whether what was to be recorded is recorded is not
    known, unless it was the first thing that was asked of it."""


class LeaseLost(Exception):
    """The bank call is no longer ours to finish: its lease ran out and another took it."""
