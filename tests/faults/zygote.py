"""A process that has imported everything, and forks a child for each scene that is played to it.

Run as a program. It takes one JSON object a line and answers one or two: `{"stopped": pid}` where
the child stopped itself, and `{"status": S, "said": …}` when it is over, S as the system tells it
(-9: killed by SIGKILL). Nothing here has a thread before the fork.
"""

import gc
import json
import os
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

from api.answers import FamilyAnswers
from api.app import create_app
from domain.commands import Mode, Tenant
from domain.ledger import LEASE_SECONDS
from infrastructure import fault_points
from infrastructure.audit.duties import Sealing
from infrastructure.duties import billing_desk, work_on_disputes
from infrastructure.logs import configure_logs
from infrastructure.services import Services, build_services
from infrastructure.settings import read_settings
from infrastructure.worker import Worker
from tests.patience import PATIENT

CONNECTIONS = 2
THREADS = 32


def main() -> None:
    """Plays what it is given until there is no more."""
    for line in sys.stdin:
        assert threading.active_count() == 1, "a fork would lose the other threads"
        play(json.loads(line))


def play(scene: dict[str, Any]) -> None:
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        act_and_leave(scene, sending)
    os.close(sending)
    status = wait_for(child)
    with os.fdopen(receiving, "rb") as pipe:
        said = pipe.read()
    tell({"status": status, "said": json.loads(said) if said else None})


def wait_for(child: int) -> int:
    """Until the child is over; says so whenever it stops."""
    while True:
        _, status = os.waitpid(child, os.WUNTRACED)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status)
        tell({"stopped": child})


def tell(what: dict[str, Any]) -> None:
    print(json.dumps(what), flush=True)


def act_and_leave(scene: dict[str, Any], sending: int) -> None:
    """The child's whole life."""
    status = 1
    try:
        said = act(scene)
        os.write(sending, json.dumps(said).encode())
        status = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the parent's code must not go on here
        traceback.print_exc()
    finally:
        os._exit(status)


def act(scene: dict[str, Any]) -> dict[str, Any]:
    """One request, or one piece of a worker's work, on services of its own."""
    services = build_services(
        read_settings(scene["environ"]),
        answers=FamilyAnswers(),
        connections=CONNECTIONS,
        bank_connections=CONNECTIONS,
        **({} if scene.get("stops_at") else {"waits": PATIENT}),
    )
    passed: list[str] = []
    if scene.get("stops_at"):
        fault_points.stop_at(*scene["stops_at"])
    elif "FAULT_POINT" not in scene["environ"]:
        fault_points.listen(passed.append)
    match scene["act"]:
        case {"post": path, "body": body, "headers": headers}:
            said = post(services, path, body, headers)
        case {"take_up": True}:
            with ThreadPoolExecutor(1) as executor:
                said = {"taken": Worker(services).take_up(executor)}
        case {"take_up_for_seconds": seconds}:
            deadline = services.clock.monotonic() + seconds
            (call,) = services.ledger.bank_calls.take_due(1, LEASE_SECONDS)
            Worker(services).resume(call, deadline)
            said = {}
        case {"disputes": True}:
            said = {"done": work_on_disputes(services)}
        case {"bill": True}:
            said = {"done": billing_desk(services).work()}
        case {"expire": payment_id, "tenant": [merchant_id, mode]}:
            Worker(services).expire(UUID(payment_id), Tenant(merchant_id, Mode(mode)))
            said = {}
        case {"seal": True}:
            Sealing(services.pool, services.settings, services.clock).step()
            said = {}
        case other:
            raise AssertionError(f"nobody can do this: {other}")
    fault_points.listen(None)
    return said | {"passed": passed}


def post(services: Services, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
    app = create_app(services, threads=THREADS)
    response = app.test_client().post(path, json=body, headers=headers)
    return {
        "code": response.status_code,
        "text": response.text,
        "headers": dict(response.headers.items()),
    }


if __name__ == "__main__":
    configure_logs("ERROR", "json")
    # A child that looks through all that it was given for garbage is given a copy of all of it.
    gc.freeze()
    gc.disable()
    main()
