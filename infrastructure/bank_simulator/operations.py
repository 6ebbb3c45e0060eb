"""The things that callers may ask for, each at its own path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infrastructure.bank_simulator import requests
from infrastructure.bank_simulator.books import Asked, Books, Json
from infrastructure.bank_simulator.profiles import Profile
from infrastructure.bank_simulator.refusals import Refused

Work = Callable[[Books, Asked], Json]

ROOT = "/api/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """`read` turns a body into work; `find` answers a GET, as of a moment; `trouble` is said when a lock
    times out.

    `find` is None where the bank has no GET.
    """

    name: str
    path: str
    read: Callable[[bytes, Profile], Work]
    find: Callable[[Books, str, float], Json] | None
    trouble: str


def _authorization(body: bytes, profile: Profile) -> Work:
    request = requests.read_authorization(body, profile)
    return lambda books, asked: books.authorize(request, asked)


def _capture(body: bytes, profile: Profile) -> Work:
    request = requests.read_capture(body, profile)
    return lambda books, asked: books.capture(request, asked)


def _void(body: bytes, profile: Profile) -> Work:
    request = requests.read_void(body, profile)
    return lambda books, asked: books.void(request, asked)


def _refund(body: bytes, profile: Profile) -> Work:
    request = requests.read_refund(body, profile)
    return lambda books, asked: books.refund(request, asked)


def _transfer(body: bytes, profile: Profile) -> Work:
    request = requests.read_transfer(body, profile)
    return lambda books, asked: books.transfer(request, asked)


_TRANSFERS = Operation(
    name="transfers",
    path=f"{ROOT}/transfers",
    read=_transfer,
    find=Books.transferred,
    trouble="invalid_account",
)


def _evidence(body: bytes, profile: Profile) -> Work:
    request = requests.read_evidence(body, profile)
    return lambda books, asked: books.hear_evidence(request, asked)


def _acceptance(body: bytes, profile: Profile) -> Work:
    request = requests.read_evidence(body, profile)
    return lambda books, asked: books.give_up(request, asked)


def _no_notice(_body: bytes, _profile: Profile) -> Work:
    raise Refused("not_found")  # they are read and never written


_OF_DISPUTES = (
    Operation(
        name="dispute_evidence",
        path=f"{ROOT}/dispute_evidence",
        read=_evidence,
        find=None,
        trouble="dispute_not_found",
    ),
    Operation(
        name="dispute_acceptances",
        path=f"{ROOT}/dispute_acceptances",
        read=_acceptance,
        find=None,
        trouble="dispute_not_found",
    ),
    Operation(
        name="dispute_notices",
        path=f"{ROOT}/dispute_notices",
        read=_no_notice,
        find=Books.dispute_notices,
        trouble="dispute_not_found",
    ),
)
_EVERY_BANKS = (
    Operation(
        name="authorizations",
        path=f"{ROOT}/authorizations",
        read=_authorization,
        find=Books.authorization,
        trouble="invalid_card",
    ),
    Operation(
        name="captures",
        path=f"{ROOT}/captures",
        read=_capture,
        find=lambda books, identifier, _now: books.captured(identifier),
        trouble="authorization_not_found",
    ),
    Operation(
        name="voids",
        path=f"{ROOT}/voids",
        read=_void,
        find=None,
        trouble="authorization_not_found",
    ),
    Operation(
        name="refunds",
        path=f"{ROOT}/refunds",
        read=_refund,
        find=lambda books, identifier, _now: books.refunded(identifier),
        trouble="capture_not_found",
    ),
)


def offered(profile: Profile) -> Mapping[str, Operation]:
    """What a bank of this profile can be asked for, by path."""
    transfers = (_TRANSFERS,) if profile.transfers else ()
    disputes = _OF_DISPUTES if profile.disputes else ()
    every = (*_EVERY_BANKS, *transfers, *disputes)
    return MappingProxyType({one.path: one for one in every})
