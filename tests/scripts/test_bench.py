"""The benchmark counts what it should: whole answers, sorted percentiles, whole process trees."""

import os

import pytest

from infrastructure import processes
from scripts.bench import figures, load, procfs
from scripts.bench.load import Measured

HEAD = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize("received", [HEAD[:10], HEAD[:-1], HEAD, HEAD + b"{ }"])
def test_a_part_of_an_answer_is_none(received: bytes) -> None:
    assert load.parsed(received) is None


def test_a_whole_answer_is_its_status_and_its_body() -> None:
    assert load.parsed(HEAD + b'{"" ') == (201, b'{"" ')


def test_an_answer_without_a_length_is_no_answer_to_count() -> None:
    with pytest.raises(ValueError, match="Content-Length"):
        load.parsed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_the_id_of_a_payment_is_read_from_its_receipt() -> None:
    assert load.payment_id(b'{"object":"receipt","payment_id":"pay_1","amount":5}') == "pay_1"


@pytest.mark.parametrize(("percent", "expected"), [(50, 50.0), (95, 95.0), (99, 99.0), (1, 1.0)])
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(
    percent: float, expected: float
) -> None:
    assert figures.percentile([float(number) for number in range(1, 101)], percent) == expected


def test_there_is_no_percentile_of_nothing() -> None:
    assert figures.percentile([], 99) is None


def test_only_what_was_asked_for_counts_as_an_operation_and_nothing_unexpected_is_lost() -> None:
    runs = [
        Measured(seconds=1, milliseconds={"capture": [2.0, 4.0], "read": [9.0]}),
        Measured(seconds=1, cpu_seconds={"server": 0.5}, unexpected={"capture: 202": 3}),
    ]

    found = figures.figures(runs, ("capture",))

    assert found["per_second"] == 1.0
    assert found["milliseconds"]["capture"]["mean"] == 3.0
    assert found["cpu_seconds_per_operation"] == {"server": 0.25}
    assert found["unexpected"] == {"capture: 202": 3}


@pytest.mark.skipif(not processes.HAS_PROC, reason="reads Linux's /proc")
def test_the_cpu_time_of_a_tree_is_that_of_its_processes() -> None:
    spent = procfs.cpu_seconds({"own": os.getpid(), "gone": 2**30})

    assert spent["own"] > 0
    assert spent["gone"] == 0
    assert os.getpid() in procfs.tree(os.getpid())
