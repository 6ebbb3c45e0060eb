"""The four things that callers may ask for, each at its own path."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from infrastructure.bank_simulator import requests
from infrastructure.bank_simulator.books import Asked, Books, Json
from infrastructure.bank_simulator.profiles import Profile

Work = Callable[[Books, Asked], Json]

ROOT = "/api/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """`read` turns a body into work; `find` answers a GET; `trouble` is said when a lock times out.

    `find` is None where the bank has no GET.
    """

    name: str
    path: str
    read: Callable[[bytes, Profile], Work]
    find: Callable[[Books, str], Json] | None
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


_ALL = (
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
        find=Books.captured,
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
        find=Books.refunded,
        trouble="capture_not_found",
    ),
)
BY_PATH: Mapping[str, Operation] = MappingProxyType({one.path: one for one in _ALL})
