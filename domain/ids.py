"""Public ids: a prefix and 26 characters that sort by time.

The suffix is a UUID (version 7 when we make it) in Crockford's base 32, lower case, most significant
digit first, so that ids sort as their UUIDs do. The same suffix may appear under two prefixes
(`pay_` and `ch_`, `rfnd_` and `re_`): two vocabularies for one thing.
"""

from enum import StrEnum
from functools import lru_cache
from typing import Final
from uuid import UUID

ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
SUFFIX_LENGTH: Final = 26
_VALUES: Final = {character: value for value, character in enumerate(ALPHABET)}
_PAIRS: Final = tuple(high + low for high in ALPHABET for low in ALPHABET)
# Where each pair's ten bits are, from the most significant.
_SHIFTS: Final = range(10 * (SUFFIX_LENGTH // 2 - 1), -1, -10)
_UUID_LIMIT: Final = 1 << 128


class Prefix(StrEnum):
    """What an id names."""

    PAYMENT = "pay_"
    CHARGE = "ch_"
    REFUND = "rfnd_"
    CHARGE_REFUND = "re_"
    REQUEST = "req_"
    KEY = "key_"
    MERCHANT = "mer_"
    CUSTOMER = "cus_"
    PAYMENT_METHOD = "pm_"
    TOKEN = "tok_"  # noqa: S105 - a prefix
    INTENT = "pi_"
    EVENT = "evt_"
    DISPUTE = "dp_"
    SUBSCRIPTION = "sub_"
    SUBSCRIPTION_ITEM = "si_"
    INVOICE = "in_"
    TEST_CLOCK = "clock_"
    BALANCE_TRANSACTION = "txn_"
    WEBHOOK_ENDPOINT = "we_"
    WEBHOOK_DELIVERY = "whd_"


class MalformedId(ValueError):
    """The text is not an id of the kind asked for."""


@lru_cache(maxsize=4096)
def encode(prefix: Prefix, value: UUID) -> str:
    """The public id of `value`, for example `pay_01jd3xk5v8e2m9q4w7r6t0y1b2`."""
    number = value.int
    return prefix + "".join([_PAIRS[number >> shift & 0x3FF] for shift in _SHIFTS])


def decode(prefix: Prefix, text: str) -> UUID:
    """The UUID that `text` names. Raises MalformedId for anything `encode` would not have written."""
    suffix = text.removeprefix(prefix)
    if not text.startswith(prefix) or len(suffix) != SUFFIX_LENGTH:
        raise MalformedId(prefix)
    number = 0
    for character in suffix:
        if character not in _VALUES:
            raise MalformedId(prefix)
        number = number * 32 + _VALUES[character]
    if number >= _UUID_LIMIT:
        raise MalformedId(prefix)
    return UUID(int=number)


def beside(value: UUID, neighbour: UUID) -> UUID:
    """`value`, but for the last six bits, which are the neighbour's: so both are in one shard."""
    return UUID(int=value.int & ~63 | neighbour.int & 63)


def uuid7(*, unix_milliseconds: int, random_bits: int) -> UUID:
    """A version 7 UUID (RFC 9562) from a time and 74 random bits, both given by the caller."""
    high, low = (random_bits >> 62) & 0xFFF, random_bits & ((1 << 62) - 1)
    stamp = unix_milliseconds & ((1 << 48) - 1)
    return UUID(int=(stamp << 80) | (0x7 << 76) | (high << 64) | (0b10 << 62) | low)
