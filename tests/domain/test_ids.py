"""Public ids say what they name, sort by time, and are written in one way only."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.ids import ALPHABET, SUFFIX_LENGTH, MalformedId, Prefix, decode, encode, uuid7

prefixes = st.sampled_from(Prefix)


@given(prefixes, st.uuids())
def test_an_id_reads_back_as_the_uuid_it_was_made_of(prefix: Prefix, value: UUID) -> None:
    assert decode(prefix, encode(prefix, value)) == value


@given(st.uuids(), st.uuids())
def test_ids_sort_as_their_uuids_do(one: UUID, other: UUID) -> None:
    texts = encode(Prefix.PAYMENT, one), encode(Prefix.PAYMENT, other)

    assert (texts[0] < texts[1]) == (one < other)


@given(st.uuids())
def test_an_id_is_its_prefix_and_26_characters_of_the_alphabet(value: UUID) -> None:
    text = encode(Prefix.REFUND, value)

    assert text.startswith("rfnd_")
    assert len(text) == len("rfnd_") + SUFFIX_LENGTH
    assert set(text.removeprefix("rfnd_")) <= set(ALPHABET)


@given(st.uuids())
def test_two_vocabularies_for_one_thing_share_the_suffix(value: UUID) -> None:
    payment, charge = encode(Prefix.PAYMENT, value), encode(Prefix.CHARGE, value)

    assert payment.removeprefix("pay_") == charge.removeprefix("ch_")


@given(prefixes, st.text(max_size=40))
def test_whatever_is_read_is_written_the_same_way_again(prefix: Prefix, text: str) -> None:
    try:
        value = decode(prefix, prefix + text)
    except MalformedId:
        return
    assert encode(prefix, value) == prefix + text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pay_",
        "pay",
        "0" * 26,
        "pay_" + "0" * 25,
        "pay_" + "0" * 27,
        "ch_" + "0" * 26,
        "PAY_" + "0" * 26,
        "pay_" + "0" * 25 + "A",
        "pay_" + "0" * 25 + "i",
        "pay_" + "0" * 25 + "l",
        "pay_" + "0" * 25 + "o",
        "pay_" + "0" * 25 + "u",
        "pay_" + "0" * 25 + "\n",
        "pay_" + "0" * 25 + "\u0660",
        "pay_8" + "0" * 25,
        "pay_" + "z" * 26,
        " pay_" + "0" * 26,
        "pay_pay_" + "0" * 22,
    ],
)
def test_what_no_id_was_ever_written_as_is_malformed(text: str) -> None:
    with pytest.raises(MalformedId):
        decode(Prefix.PAYMENT, text)


def test_the_highest_uuid_is_still_an_id() -> None:
    highest = UUID(int=2**128 - 1)

    assert encode(Prefix.PAYMENT, highest) == "pay_7" + "z" * 25
    assert decode(Prefix.PAYMENT, "pay_7" + "z" * 25) == highest


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**74 - 1))
def test_a_new_uuid_is_of_version_7_and_carries_its_time(time: int, bits: int) -> None:
    value = uuid7(unix_milliseconds=time, random_bits=bits)

    assert (value.version, value.variant) == (7, "specified in RFC 4122")
    assert value.int >> 80 == time


@given(st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_no_randomness_is_lost_in_a_new_uuid(one: int, other: int) -> None:
    made = [uuid7(unix_milliseconds=1, random_bits=bits) for bits in (one, other)]

    assert (made[0] == made[1]) == (one == other)


@given(st.integers(0, 2**74 - 1), st.integers(0, 2**74 - 1))
def test_a_later_uuid_sorts_after_an_earlier_one(one: int, other: int) -> None:
    earlier = uuid7(unix_milliseconds=1_000, random_bits=one)
    later = uuid7(unix_milliseconds=1_001, random_bits=other)

    assert encode(Prefix.PAYMENT, earlier) < encode(Prefix.PAYMENT, later)
