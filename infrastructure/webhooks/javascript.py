"""JSON to the byte as JavaScript's `JSON.stringify` writes what its `JSON.parse` read.

Published receivers check a signature over a body that they parsed and wrote again: so nothing may come
out of that in another order or another spelling.
"""

import json
import json.encoder
from collections.abc import Iterable
from typing import Any, Final

# Keys below this one are a JavaScript object's indices, and come first, whenever they were put in.
FIRST_NO_INDEX: Final = 2**32 - 1
LONGEST_INDEX: Final = len(str(FIRST_NO_INDEX))
# From here on, and below the other, JavaScript writes an exponent.
FIRST_WITH_EXPONENT: Final = 1e21
LAST_WITH_EXPONENT: Final = 1e-6

_text = json.encoder.encode_basestring


def stringify(value: Any) -> str:
    """The text of a JSON value: of texts, numbers that a double carries, booleans, None, lists, dicts."""
    match value:
        case str():
            return _text(value)
        case dict():
            pairs = (f"{_text(name)}:{stringify(item)}" for name, item in in_order(value.items()))
            return f"{{{','.join(pairs)}}}"
        case list() | tuple():
            return f"[{','.join(map(stringify, value))}]"
        case float():
            return number(value)
        case _:
            return json.dumps(value, allow_nan=False)  # a whole number, true, false, null


def in_order(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """A JavaScript object's own order: indices, ascending, then the others as they were put in."""
    return sorted(pairs, key=lambda pair: _index(pair[0]))


def _index(name: str) -> int:
    """Which index a key is; what is none comes after all that are."""
    is_number = name.isascii() and name.isdigit() and len(name) <= LONGEST_INDEX
    is_index = is_number and (name == "0" or name[0] != "0") and int(name) < FIRST_NO_INDEX
    return int(name) if is_index else FIRST_NO_INDEX


def number(value: float) -> str:
    """A double, as `Number::toString` of ECMAScript writes it: the shortest digits that mean it."""
    if value == 0:
        return "0"
    digits, _, exponent = repr(abs(value)).partition("e")
    sign = "-" if value < 0 else ""
    if FIRST_WITH_EXPONENT > abs(value) >= LAST_WITH_EXPONENT:
        return sign + (_plain(digits, int(exponent or 0)))
    mantissa, point = digits.removesuffix(".0"), int(exponent)
    return f"{sign}{mantissa}e{'+' if point > 0 else '-'}{abs(point)}"


def _plain(digits: str, exponent: int) -> str:
    """Without an exponent."""
    whole, _, part = digits.partition(".")
    part = "" if part == "0" else part
    if exponent >= 0:
        whole, part = whole + part[:exponent].ljust(exponent, "0"), part[exponent:]
    else:
        padded = whole.rjust(1 - exponent, "0")
        whole, part = padded[:exponent], padded[exponent:] + part
    return f"{whole}.{part}" if part else whole
