"""A process that is stopped until its lease has run out, and wakes up after another did its work:
it changes nothing, and what it tells its client is true."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from domain.ledger import LEASE_SECONDS
from infrastructure.bank.driver import MINIMUM_RETRY_SECONDS
from infrastructure.database import OF_REQUESTS
from tests.faults.a_world import Scene, World
from tests.faults.scenes import SCENES, authorization, capture, refund, void
from tests.infrastructure.bank_simulator.a_bank import eventually

Point = tuple[str, int]

# Longer than a request has for the bank, and for the database, as leases are: whoever wakes up is
# too late for either.
LATE_SECONDS: Final = OF_REQUESTS.answer + 0.1
AFTER_IT_WAS_ASKED: Final = {"bank.waited_for", "bank.answered", "append.begun", "park.begun"}
IMPATIENT: Final = {"REQUEST_DEADLINE_SECONDS": "2", "BANK_TIMEOUT_SECONDS": "1.4"}

# The places between Tx 1 and Tx 2 of a request, in order.
IN_THE_MIDDLE: Final[list[Point]] = [
    ("append.committed", 1),
    ("bank.asked", 1),
    ("bank.waited_for", 1),
    ("bank.answered", 1),
    ("append.begun", 2),
]
OPERATIONS: Final[dict[str, Callable[..., Scene]]] = {
    "authorization": authorization,
    "capture": capture,
    "void": void,
    "refund": refund,
}


@pytest.fixture
def impatient(world: World) -> World:
    """Its requests have two seconds, and the bank less than the database."""
    return World(world.api, world.bank, world.zygote, {**world.environ, **IMPATIENT})


def stopped(world: World, scene: Scene, point: Point) -> int:
    """Its process id, once it has stopped itself there."""
    world.begin(scene, stops_at=point)
    pid: int = world.zygote.heard()["stopped"]
    if point[0] not in AFTER_IT_WAS_ASKED:
        too_late = time.monotonic() + LATE_SECONDS
        eventually(lambda: time.monotonic() > too_late)
    world.settle_down()
    return pid


def everything(world: World) -> dict[str, Any]:
    """All that a zombie could change, here and at the bank."""
    ledger = world.bank.ledger()
    return {
        **world.api.behind(),
        "books": ledger["transactions"],
        "asked": ledger["calls"],
        "receipts": world.rows("SELECT * FROM receipts ORDER BY payment_id"),
        "outstanding": world.rows("SELECT * FROM bank_calls ORDER BY payment_id"),
        "keys": world.rows("SELECT * FROM idempotency_keys ORDER BY key"),
        "answers": world.rows("SELECT * FROM idempotency_answers ORDER BY key"),
    }


@pytest.mark.parametrize("point", IN_THE_MIDDLE, ids=lambda point: f"{point[0]}-{point[1]}")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_request_that_wakes_up_after_another_did_its_work_changes_nothing_and_tells_the_truth(
    impatient: World, operation: str, point: Point
) -> None:
    check_that_it_changes_nothing(impatient, OPERATIONS[operation](impatient), point)


def test_a_request_that_wakes_up_before_it_gives_up_does_not_give_up_what_another_finished(
    impatient: World,
) -> None:
    silent = authorization(impatient, drop_before=1)

    check_that_it_changes_nothing(impatient, silent, ("park.begun", 1))


@pytest.mark.parametrize("transaction", [1, 2])
def test_a_request_that_wakes_up_in_a_transaction_learns_what_came_of_it_and_tells_the_truth(
    impatient: World, passes: dict[str, list[str]], transaction: int
) -> None:
    """The acknowledgement has come while it was stopped, and it was stopped for longer than it waits."""
    point = ("database.waited_for", waits_until_commit(passes["capture"], transaction))

    check_that_it_changes_nothing(impatient, capture(impatient), point)


def waits_until_commit(passed: list[str], transaction: int) -> int:
    """How often the database was waited for when this transaction was sent."""
    commits = [place for place, point in enumerate(passed) if point == "append.committed"]
    return passed[: commits[transaction - 1]].count("database.waited_for")


def check_that_it_changes_nothing(world: World, scene: Scene, point: Point) -> None:
    pid = stopped(world, scene, point)
    world.recover()
    assert scene.request is not None
    outcome, before = world.ask(scene.request), everything(world)

    ended = let_go_on(world, pid)

    assert ended["status"] == 0
    assert (ended["said"]["code"], ended["said"]["text"]) == (201, outcome.text), ended
    assert everything(world) == before
    world.check([scene])


@pytest.mark.parametrize("with_key", [True, False])
@pytest.mark.parametrize(
    ("faults", "point"), [({}, "bank.answered"), ({"drop_after": 1}, "park.begun")]
)
def test_a_request_that_wakes_up_while_another_is_at_its_work_tells_what_is_certain(
    impatient: World, faults: dict[str, Any], point: str, with_key: bool
) -> None:
    """Without a key it must not be told to ask again: that would be another refund."""
    world, scene = impatient, refund(impatient, **faults)
    if not with_key:
        del scene.act["headers"]["Idempotency-Key"]
    pid = stopped(world, scene, (point, 1))
    world.time_flies()
    taken = world.api.services.ledger.bank_calls.take_due(1, LEASE_SECONDS)
    before = everything(world)

    ended = let_go_on(world, pid)

    told = json.loads(ended["said"]["text"])
    assert (ended["said"]["code"], told["object"], told["status"]) == (202, "refund", "pending")
    assert len(taken) == 1
    assert everything(world) == before
    world.recover()
    world.check([scene] if with_key else [])


@pytest.mark.parametrize(
    ("what", "point"),
    [
        ("capture taken up", ("calls.taken", 1)),
        ("capture taken up", ("worker.resumed", 1)),
        ("capture taken up", ("bank.asked", 1)),
        ("capture taken up", ("bank.waited_for", 1)),
        ("capture taken up", ("bank.answered", 1)),
        ("capture taken up", ("append.begun", 1)),
        ("refund taken up again", ("park.begun", 1)),
        ("expiry", ("bank.waited_for", 1)),
        ("expiry", ("bank.answered", 1)),
        ("expiry", ("append.begun", 2)),
    ],
)
def test_a_worker_that_wakes_up_after_another_did_its_work_changes_nothing(
    impatient: World, what: str, point: Point
) -> None:
    world, scene = impatient, SCENES[what](impatient)
    if "take_up" in scene.act:  # for less time than a worker has, so that the test need not wait
        scene = replace(scene, act={"take_up_for_seconds": MINIMUM_RETRY_SECONDS})
    pid = stopped(world, scene, point)
    world.recover()
    before = everything(world)

    ended = let_go_on(world, pid)

    assert ended["status"] == 0
    assert everything(world) == before
    world.check([scene])


def let_go_on(world: World, pid: int) -> dict[str, Any]:
    os.kill(pid, signal.SIGCONT)
    return world.zygote.heard()
