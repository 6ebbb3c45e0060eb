"""What callers ask: a JSON body read into one of five requests.

A wrong JSON type is a protocol error (`Unreadable`). A value of the right type that is out of
bounds is refused with its code. A missing field counts as the empty value of its type, which is
how an empty object comes to be refused rather than unreadable.
"""

import json
import re
from dataclasses import dataclass
from typing import NoReturn

from infrastructure.bank_simulator.profiles import DEFAULT_CURRENCY, Profile
from infrastructure.bank_simulator.refusals import Refused, Unreadable

LARGEST_INTEGER = 2**63 - 1
LONGEST_NAME = 255
# Printable ASCII, so that it fits into a header; a scheme may be an app's own.
RETURN_URL = re.compile(r"(?!(?i:javascript|data):)[A-Za-z][A-Za-z0-9+.-]*:[!-~]{1,2000}")
ACCOUNT_NUMBER = re.compile(r"[0-9]{8}")
SORT_CODE = re.compile(r"[0-9]{6}")


@dataclass(frozen=True, kw_only=True, slots=True)
class AuthorizationRequest:
    """`amount` in cents. The expiry as sent; the bank trusts its own record of it. `return_url`: where
    a shopper goes who was asked to approve."""

    card_number: str
    cvv: str
    expiry_month: int
    expiry_year: int
    amount: int
    currency: str
    return_url: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CaptureRequest:
    authorization_id: str
    amount: int


@dataclass(frozen=True, kw_only=True, slots=True)
class VoidRequest:
    authorization_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RefundRequest:
    capture_id: str
    amount: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferRequest:
    """Money from an account at another bank; `amount` in minor units."""

    account_number: str
    sort_code: str
    account_holder_name: str
    amount: int
    currency: str


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceRequest:
    """What whoever took the payment has to say; nothing, where they give it up."""

    dispute_id: str
    evidence: str


@dataclass(frozen=True, kw_only=True, slots=True)
class DisputeRequest:
    """A holder disputes `amount` of a capture, or all that is left where it is 0; or, with `decision`, the
    bank has decided a dispute."""

    capture_id: str
    amount: int
    reason: str
    dispute_id: str
    decision: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountRequest:
    """A new card for a load test, or more money for a known one; `balance` in cents."""

    card_number: str
    cvv: str
    expiry_month: int
    expiry_year: int
    balance: int


class Fields:
    """A JSON object, read field by field with its types checked."""

    def __init__(self, body: bytes) -> None:
        """Raises `Unreadable` unless the body is a JSON object (or null, which is an empty one)."""
        try:
            parsed = json.loads(body, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise Unreadable from error
        if not isinstance(parsed, dict | None):
            raise Unreadable
        self._fields: dict[str, object] = parsed or {}

    def all(self) -> dict[str, object]:
        return self._fields

    def text(self, name: str, default: str = "") -> str:
        value = self._fields.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise Unreadable
        return value

    def integer(self, name: str) -> int:
        value = self._fields.get(name)
        if value is None:
            return 0
        # A JSON true is an int to Python, and 100.0 is a float: neither is the published type.
        if type(value) is not int or abs(value) > LARGEST_INTEGER:
            raise Unreadable
        return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def read_authorization(body: bytes, profile: Profile) -> AuthorizationRequest:
    """Raises `Unreadable` for wrong types, `Refused` for values out of bounds."""
    fields = Fields(body)
    request = AuthorizationRequest(
        card_number=fields.text("card_number"),
        cvv=fields.text("cvv"),
        expiry_month=fields.integer("expiry_month"),
        expiry_year=fields.integer("expiry_year"),
        amount=fields.integer("amount"),
        currency=_currency(fields, profile),
        return_url=(fields.text("return_url") or None) if profile.challenges else None,
    )
    _check_bounds(request, profile)
    return request


def _currency(fields: Fields, profile: Profile) -> str:
    if not profile.currencies:
        return DEFAULT_CURRENCY
    return fields.text("currency", DEFAULT_CURRENCY).upper()


def _check_bounds(request: AuthorizationRequest, profile: Profile) -> None:
    if not is_card_number(request.card_number):
        raise Refused("invalid_card")
    if not _is_cvv(request.cvv) and (profile.cvv_required or request.cvv):
        raise Refused("invalid_cvv")
    _check_amount(request.amount)
    if not _is_currency(request.currency):
        raise Refused("invalid_currency")
    if request.return_url is not None and not is_return_url(request.return_url):
        raise Refused("invalid_return_url")


def read_capture(body: bytes, _profile: Profile) -> CaptureRequest:
    """Raises `Unreadable` for wrong types, `Refused` for values out of bounds."""
    fields = Fields(body)
    request = CaptureRequest(
        authorization_id=fields.text("authorization_id"), amount=fields.integer("amount")
    )
    _check_amount(request.amount)
    return request


def read_void(body: bytes, _profile: Profile) -> VoidRequest:
    """Raises `Unreadable` for wrong types."""
    return VoidRequest(authorization_id=Fields(body).text("authorization_id"))


def read_refund(body: bytes, _profile: Profile) -> RefundRequest:
    """Raises `Unreadable` for wrong types, `Refused` for values out of bounds."""
    fields = Fields(body)
    request = RefundRequest(capture_id=fields.text("capture_id"), amount=fields.integer("amount"))
    _check_amount(request.amount)
    return request


def read_transfer(body: bytes, profile: Profile) -> TransferRequest:
    """Raises `Unreadable` for wrong types, `Refused` for values out of bounds."""
    fields = Fields(body)
    request = TransferRequest(
        account_number=fields.text("account_number"),
        sort_code=fields.text("sort_code").replace("-", "").replace(" ", ""),
        account_holder_name=fields.text("account_holder_name").strip(),
        amount=fields.integer("amount"),
        currency=_currency(fields, profile),
    )
    is_account = ACCOUNT_NUMBER.fullmatch(request.account_number)
    has_name = 0 < len(request.account_holder_name) <= LONGEST_NAME
    if not (is_account and SORT_CODE.fullmatch(request.sort_code) and has_name):
        raise Refused("invalid_account")
    _check_amount(request.amount)
    if not _is_currency(request.currency):
        raise Refused("invalid_currency")
    return request


def read_account(body: bytes) -> AccountRequest:
    """Raises `Unreadable` for wrong types, `Refused` for values out of bounds."""
    fields = Fields(body)
    request = AccountRequest(
        card_number=fields.text("card_number"),
        cvv=fields.text("cvv"),
        expiry_month=fields.integer("exp_month"),
        expiry_year=fields.integer("exp_year"),
        balance=fields.integer("balance"),
    )
    if not is_card_number(request.card_number):
        raise Refused("invalid_card")
    if not _is_cvv(request.cvv):
        raise Refused("invalid_cvv")
    if not (1 <= request.expiry_month <= 12 and 1 <= request.expiry_year <= 9999):
        raise Refused("card_expired")
    if request.balance < 0:
        raise Refused("invalid_amount")
    return request


def read_evidence(body: bytes, _profile: Profile) -> EvidenceRequest:
    """Raises `Unreadable` for wrong types."""
    fields = Fields(body)
    return EvidenceRequest(dispute_id=fields.text("dispute_id"), evidence=fields.text("evidence"))


def read_dispute(body: bytes) -> DisputeRequest:
    """Raises `Unreadable` for wrong types."""
    fields = Fields(body)
    return DisputeRequest(
        capture_id=fields.text("capture_id"),
        amount=fields.integer("amount"),
        reason=fields.text("reason", "fraudulent"),
        dispute_id=fields.text("dispute_id"),
        decision=fields.text("decision"),
    )


def is_return_url(text: str) -> bool:
    """An address that a browser may be sent to."""
    return RETURN_URL.fullmatch(text) is not None


def is_card_number(text: str) -> bool:
    """13 to 19 digits that pass the Luhn check."""
    return 13 <= len(text) <= 19 and text.isascii() and text.isdigit() and _passes_luhn(text)


def _passes_luhn(digits: str) -> bool:
    odd, even = digits[-1::-2], digits[-2::-2]
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in even)
    return (sum(map(int, odd)) + doubled) % 10 == 0


def _is_cvv(text: str) -> bool:
    return 3 <= len(text) <= 4 and text.isascii() and text.isdigit()


def _is_currency(text: str) -> bool:
    return len(text) == 3 and text.isascii() and text.isalpha()


def _check_amount(amount: int) -> None:
    if amount < 1:
        raise Refused("invalid_amount")
