"""JSON as it is read here, where all of the log is read again: fast, and strict in what is the same.

A number that an integer of 64 bits does not hold is read as a fraction, in events and in rows alike.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import orjson
from psycopg import Connection, Cursor
from psycopg.types.json import set_json_loads

from infrastructure.event_store import FlatJSON

WRITTEN_OUT: Final = "{:f}"
NESTED: Final = frozenset({dict, list})


class QuickJSON(FlatJSON):
    """The same, several times as fast."""

    def decode(self, data: bytes) -> Any:
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:  # which is stricter
            return super().decode(data)


def read_json_quickly(connection: Connection[Any]) -> None:
    """Of rows that this connection reads."""
    set_json_loads(orjson.loads, connection)


def read_documents_later(cursor: Cursor[Any]) -> None:
    """The cursor gives JSON as the bytes that it is. Of many rows that are fetched at once, each is then
    read and compared while it is in the processor's cache, which takes a third off."""
    set_json_loads(bytes, cursor)  # type: ignore[arg-type]  # it is never given a text


def are_same(made: Sequence[Any], stored: Sequence[Any]) -> bool:
    """Whether these are the same values, of the same kinds: 5000 is not 5000.0, nor true 1. `made`: as
    they were given to the database; `stored`: as it gives them back."""
    if len(made) != len(stored):
        return False
    for one, other in zip(made, stored, strict=True):
        is_plain = type(one) is type(other) and type(one) not in NESTED
        if not ((is_plain and one == other) or _is_same(one, other)):
            return False
    return True


def _is_same(made: Any, stored: Any) -> bool:
    if isinstance(made, dict | list | float):
        return _text(made) == _text(stored) or _text(_read_again(made)) == _text(stored)
    is_of_kind = type(stored) not in (bool, int, float) or type(made) is type(stored)
    return is_of_kind and bool(made == stored)


def _text(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _read_again(made: Any) -> Any:
    """What becomes of it in the database, which writes all digits of a number out, and has one zero."""
    match made:
        case dict():
            return {name: _read_again(each) for name, each in made.items()}
        case list():
            return [_read_again(each) for each in made]
        case float():
            return orjson.loads(WRITTEN_OUT.format(Decimal(repr(made)))) + 0
        case _:
            return made
