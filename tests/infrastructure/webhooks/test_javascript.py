"""What is sent is what JavaScript would write."""

import json
import math
import shutil
import struct
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infrastructure.webhooks.javascript import stringify

PARSED_AND_WRITTEN = (
    "process.stdout.write(JSON.stringify(JSON.parse(require('fs').readFileSync(0, 'utf8'))))"
)

texts = st.text(st.characters(exclude_categories=["Cs"]))
keys = texts | st.integers(-1, 2**33).map(str) | st.sampled_from(["00", "01", "-0", "1.5", " 1"])
leaves = (
    texts
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
)
documents = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=30
)


@given(documents)
def test_it_is_json_that_means_the_same_and_is_written_the_same_again(document: Any) -> None:
    written = stringify(document)

    read = json.loads(written, parse_int=float)  # as JavaScript reads whole numbers
    assert read == document
    assert stringify(read) == written


@pytest.mark.parametrize(
    ("document", "written"),
    [
        ({"b": 1, "10": 2, "9": 3, "a": 4}, '{"9":3,"10":2,"b":1,"a":4}'),
        ({"4294967295": 1, "4294967294": 2}, '{"4294967294":2,"4294967295":1}'),
        ({"01": 1, "1": 2, "-1": 3}, '{"1":2,"01":1,"-1":3}'),
        ({"nested": [{"2": 1, "1": 2}]}, '{"nested":[{"1":2,"2":1}]}'),
        ("é\u2028😀\x7f/", '"é\u2028😀\x7f/"'),
        ('\b\t\n\f\r\x01"\\', '"\\b\\t\\n\\f\\r\\u0001\\"\\\\"'),
        ([1.0, -0.0, 0.5, 1e21, 1e20, 1e-6, 1e-7], "[1,0,0.5,1e+21,100000000000000000000,0.000001,1e-7]"),
        ([True, False, None, 9007199254740991], "[true,false,null,9007199254740991]"),
    ],
)  # fmt: skip
def test_keys_texts_and_numbers_are_written_as_javascript_does(document: Any, written: str) -> None:
    assert stringify(document) == written


def test_node_reads_it_and_writes_the_same() -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    doubles = [struct.unpack("d", (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8))[0] for number in range(3000)]  # fmt: skip
    exact = [number for number in doubles if math.isfinite(number)]
    exact += [base * 10.0**power for power in range(-9, 24) for base in (1, 1.5, 123.456, -9.99)]
    document = {
        "b": exact,
        "10": "\u2028é😀\x7f\x1f",
        "2": {"4294967295": 1, "4294967294": 2, "007": 3, "0": 4, "__proto__": 5},
    }
    written = stringify(document)

    done = subprocess.run(
        [node, "-e", PARSED_AND_WRITTEN], input=written.encode(), capture_output=True, check=True
    )

    assert done.stdout.decode() == written
