"""A process is killed at each fault point of a transfer, and the money is asked for once all the same."""

from collections.abc import Iterator
from itertools import cycle
from typing import Final

import pytest

from tests.api.an_api import fresh, json_of
from tests.builders import ACCOUNT_NUMBER
from tests.conftest import Databases
from tests.faults.a_world import Request, Scene, World, a_world, uuid_text
from tests.faults.test_fault_points import FATES, KILLED, PAUSE
from tests.infrastructure.bank_simulator.a_bank import CALM, Bank

BODY: Final = {
    "amount": 5000,
    "currency": "gbp",
    "source": {
        "type": "bank_transfer",
        "bank_account": {
            "account_number": ACCOUNT_NUMBER,
            "sort_code": "12-34-56",
            "account_holder_name": "Ada Lovelace",
        },
    },
}
DAY_SECONDS: Final = 24 * 3600
STEPS: Final = ("asked for", "put to the bank", "looked at")


@pytest.fixture(scope="module")
def transfer_world(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """At a bank that takes transfers."""
    bank = Bank(tmp_path_factory.mktemp("bank") / "bank.db", *CALM, "--profile", "extended")
    try:
        with databases.clone() as url, a_world(url, bank, profile="extended") as world:
            yield world
    finally:
        bank.kill()


def about_to(world: World, step: str) -> Scene:
    """A transfer that has got as far as the step before."""
    world.bank.faults(reset=True)
    headers = {
        "Authorization": f"Bearer {world.merchant().key}",
        "Idempotency-Key": fresh("key"),
    }
    request = Request(path="/v1/payments", body=BODY, headers=headers, final_status=201)
    if step == "asked for":
        act = {"post": request.path, "body": BODY, "headers": headers}
        return Scene(act=act, request=request)
    payment_id = json_of(world.ask(request))["id"]
    world.only_due(payment_id)
    if step == "looked at":
        world.play(Scene(act={"take_up": True}))
        world.only_due(payment_id)
    return Scene(act={"take_up": True}, request=request)


@pytest.mark.parametrize("step", STEPS)
def test_wherever_a_process_is_killed_there_is_one_transfer_and_it_settles(
    transfer_world: World, step: str
) -> None:
    world, scenes = transfer_world, []
    ended = world.play(about_to(world, step))
    assert ended["status"] == 0
    points, fates = ended["said"]["passed"], cycle(FATES)
    killed = 0
    for place, point in enumerate(points):
        number = points[: place + 1].count(point)
        scene = about_to(world, step)
        ended = world.play(scene, dies_at=(point, number), **PAUSE, **next(fates))
        killed += ended["status"] == KILLED
        scenes.append(scene)
        world.settle_down()
    assert killed > 3

    for scene in scenes:
        assert scene.request is not None
        assert world.ask(scene.request).status_code == 201
    for days in (1, 2):  # asked for, and then looked at once the other bank has sent it
        world.bank.faults(clock_offset_seconds=days * DAY_SECONDS)
        world.recover_once()

    transfers = {each["idempotency_key"]: each for each in world.bank.ledger()["transfers"]}
    assert len(transfers) == len(world.bank.ledger()["transfers"])
    for scene in scenes:
        assert scene.request is not None
        payment_id = json_of(world.ask(scene.request))["id"]
        (row,) = world.rows_of(uuid_text(payment_id))
        assert (row["status"], row["needs_review"], row["pending"]) == ("captured", False, False)
        booked = transfers[f"{payment_id}-transfer-1"]["transfer_id"]
        assert row["document"]["bank"]["capture_id"] == booked
