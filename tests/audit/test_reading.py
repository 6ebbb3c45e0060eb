"""What went through the database is the same as before, and nothing else is the same as it."""

import json
from collections.abc import Iterator
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from infrastructure.event_store import COMPACT
from infrastructure.verification.reading import QuickJSON, are_same, read_json_quickly

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


@pytest.fixture(scope="module")
def connection(shared_database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(shared_database_url, autocommit=True) as connection:
        read_json_quickly(connection)
        yield connection


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(values=st.lists(st.dictionaries(TEXTS, VALUES, max_size=4), min_size=1, max_size=20))
def test_a_document_is_the_same_after_the_database_had_it(
    connection: psycopg.Connection, values: list[dict[str, Any]]
) -> None:
    made = [QuickJSON().decode(COMPACT.encode(value).encode()) for value in values]

    row = connection.execute("SELECT %s::jsonb[]", [list(map(Jsonb, made))]).fetchone()

    assert row is not None
    others = [pair for pair in zip(made, row[0], strict=True) if not are_same(pair[:1], pair[1:])]
    assert others == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (5000, 5000.0),
        (1, True),
        (0, False),
        (0.0, 0),
        ("5000", 5000),
        (None, False),
        (10**17 + 1, 10**17),
    ],
)
def test_values_that_only_count_as_equal_are_not_the_same(one: Any, other: Any) -> None:
    assert are_same([{"a": [one]}], [{"a": [one]}])
    assert not are_same([{"a": [one]}], [{"a": [other]}])
    assert not are_same([{"a": one}], [{"a": other}])
    assert not are_same([one], [other])


@given(text=TEXTS)
def test_texts_are_written_as_in_the_log(text: str) -> None:
    """By which digests are computed."""
    assert orjson.dumps([text]) == COMPACT.encode([text]).encode()


def test_what_only_the_laxer_reader_takes_is_still_read() -> None:
    assert QuickJSON().decode(b'{"a":"\\ud800"}') == json.loads(r'{"a":"\ud800"}')
