"""Bad luck can be repeated, and every fault can be switched."""

import pytest

from infrastructure.bank_simulator.chaos import Chaos
from infrastructure.bank_simulator.faults import COUNTED, Counted, Faults, Switches, WrongSwitch


@pytest.fixture
def faults() -> Faults:
    return Faults(Switches())


def test_a_seed_gives_the_same_moods_again() -> None:
    def moods(seed: int | None) -> list[object]:
        chaos = Chaos(seed)
        return [
            chaos.mood(failure_rate=0.5, min_latency_ms=100, max_latency_ms=2_000)
            for _ in range(50)
        ]

    assert moods(7) == moods(7)
    assert moods(7) != moods(8)


def test_latency_and_failures_keep_to_their_bounds() -> None:
    chaos = Chaos(1)
    moods = [
        chaos.mood(failure_rate=0.05, min_latency_ms=100, max_latency_ms=2_000)
        for _ in range(4_000)
    ]
    assert all(0.1 <= mood.latency_seconds <= 2 for mood in moods)
    assert 1.0 < sum(mood.latency_seconds for mood in moods) / 4_000 < 1.1
    assert 0.04 < sum(mood.fails for mood in moods) / 4_000 < 0.06


def test_the_defaults_are_the_partners(faults: Faults) -> None:
    state = faults.state()
    assert (state["failure_rate"], state["min_latency_ms"], state["max_latency_ms"]) == (
        0.05, 100, 2_000,
    )  # fmt: skip
    assert (state["overlap"], state["forget"], state["abandoned"]) == (True, 0.02, "stopped")
    assert all(state[name] is None for name in COUNTED)


def test_a_counted_fault_strikes_so_many_calls_of_its_operation(faults: Faults) -> None:
    faults.merge({"drop_after": {"count": 2, "operation": "captures"}})
    assert faults.take("drop_after", "voids") is None
    assert faults.take("drop_after", "captures") == Counted(count=2, operation="captures")
    assert faults.state()["drop_after"] == {"count": 1, "operation": "captures"}
    assert faults.take("drop_after", "captures")
    assert faults.take("drop_after", "captures") is None


def test_merging_leaves_the_rest_alone_and_reset_does_not(faults: Faults) -> None:
    faults.merge({"forget": 1, "fail_before": 3})
    faults.merge({"overlap": False})
    assert faults.state()["fail_before"] == {"count": 3, "operation": None}
    faults.merge({"reset": True, "garble": 1})
    assert faults.switches == Switches()
    assert faults.state()["fail_before"] is None
    assert faults.state()["garble"] == {"count": 1, "operation": None}


def test_zero_and_null_take_a_fault_back(faults: Faults) -> None:
    faults.merge({"garble": 1, "mismatch": 1})
    faults.merge({"garble": 0, "mismatch": None})
    assert faults.state()["garble"] is None
    assert faults.state()["mismatch"] is None


def test_the_state_is_accepted_back(faults: Faults) -> None:
    faults.merge({"hang": {"milliseconds": 5}, "overlap": False, "garble": 2})
    state = faults.state()
    faults.merge({"reset": True})
    faults.merge(state)
    assert faults.state() == state


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"nonsense": 1}, "nonsense"),
        ({"overlap": 1}, "overlap"),
        ({"forget": 2}, "forget"),
        ({"abandoned": "maybe"}, "abandoned"),
        ({"failure_rate": True}, "failure_rate"),
        ({"min_latency_ms": 3_000}, "min_latency_ms"),
        ({"max_latency_ms": 1.5}, "max_latency_ms"),
        ({"clock_offset_seconds": 1e18}, "clock_offset_seconds"),
        ({"fail_before": -1}, "fail_before.count"),
        ({"fail_before": {"milliseconds": 1}}, "fail_before.milliseconds"),
        ({"fail_before": {"operation": "payments"}}, "fail_before.operation"),
        ({"hang": 1}, "hang.milliseconds"),
    ],
)
def test_a_wrong_switch_is_named_and_nothing_is_changed(
    faults: Faults, changes: dict[str, object], named: str
) -> None:
    before = faults.state()
    with pytest.raises(WrongSwitch, match=named):
        faults.merge({"garble": 1} | changes)
    assert faults.state() == before
