"""What we sign and prove is verified by libraries that we did not write: Go's signed notes, and the
Merkle proofs of the transparency logs."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from domain.evidence import leaf_bytes
from infrastructure.audit.tree import consistency, inclusion
from infrastructure.checkpoint_keys import new_signing_key
from tests.audit.a_sealed_log import SealedLog, audit_settings, whole_log

AUDITOR: Final = Path(__file__).with_name("auditor")
BUILD_SECONDS: Final = 240
RUN_SECONDS: Final = 30

Verify = Callable[[dict[str, Any]], "subprocess.CompletedProcess[str]"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(BUILD_SECONDS + 60)]


@pytest.fixture(scope="module")
def verify(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Verify:
    """The auditor's program, built where there is Go and its modules can be fetched; `--proofs` wants it."""
    program = tmp_path_factory.mktemp("auditor") / "auditor"
    why_not = built(program)
    if why_not is not None and not pytestconfig.getoption("--proofs"):
        pytest.skip(why_not)
    assert why_not is None

    def run(evidence: dict[str, Any]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program],
            input=json.dumps(evidence),
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )

    return run


def built(program: Path) -> str | None:
    """Why it cannot be; None if it is there."""
    go = shutil.which("go")
    if go is None:
        return "there is no go on this machine"
    done = subprocess.run(
        [go, "build", "-o", str(program), "."],
        cwd=AUDITOR,
        env={**os.environ, "GOFLAGS": "-mod=readonly"},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    return None if done.returncode == 0 else done.stderr.strip()[-300:]


def base64_of(hashes: list[bytes]) -> list[str]:
    return [base64.b64encode(each).decode() for each in hashes]


@pytest.fixture
def evidence(log: SealedLog) -> dict[str, Any]:
    """A log that grew in steps, with a proof of each event and between any two checkpoints; the last one
    is signed by two keys, one of which takes the other's place."""
    old, new = new_signing_key("ledger.example/2026"), new_signing_key("ledger.example/2027")
    log = SealedLog(log.pool, audit_settings(log.settings.data_dir, CHECKPOINT_KEY=f"{new},{old}"))
    signed = []
    for payments in (1, 3, 4, 120, 7):
        log.append(payments)
        signed.append(log.signed())
    last = signed[-1]
    with log.pool.connection() as connection:
        included = [
            {
                "position": leaf.position,
                "leaf": base64.b64encode(leaf_bytes(leaf)).decode(),
                "hashes": base64_of(inclusion(connection, leaf.position, last.size)[1]),
            }
            for leaf in whole_log(connection)
        ]
        grown = [
            {
                "from": one.size,
                "to": other.size,
                "hashes": base64_of(consistency(connection, one.size, other.size)),
                "old_root": base64.b64encode(one.root).decode(),
                "new_root": base64.b64encode(other.root).decode(),
            }
            for place, one in enumerate(signed)
            for other in signed[place:]
        ]
    return {
        "vkeys": list(last.keys),
        "note": last.whole,
        "size": last.size,
        "root": base64.b64encode(last.root).decode(),
        "inclusion": included,
        "consistency": grown,
    }


def test_a_checkpoint_and_all_proofs_are_good_to_public_tools(
    verify: Verify, evidence: dict[str, Any]
) -> None:
    done = verify(evidence)

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["signatures"] == 2
    named = "".join(f"counterfoil key {vkey}\n" for vkey in evidence["vkeys"])
    assert said["text"] == f"ledger.example/log\n270\n{evidence['root']}\n{named}"
    assert len(evidence["inclusion"]) == 270
    assert len(evidence["consistency"]) == 15


def test_and_what_is_forged_is_not(verify: Verify, evidence: dict[str, Any]) -> None:
    """So that the one above can fail."""
    first, between = evidence["inclusion"][7], evidence["consistency"][1]
    forged = {
        "note": {"note": evidence["note"].replace("\n270\n", "\n271\n")},
        "inclusion of 8": {"inclusion": [{**first, "position": 8}]},
        "inclusion of 7": {"inclusion": [{**first, "leaf": base64.b64encode(b"x").decode()}]},
        "consistency of 2 and 8": {"consistency": [{**between, "old_root": between["new_root"]}]},
    }

    for words, change in forged.items():
        done = verify({**evidence, **change})
        assert done.returncode == 1
        assert done.stderr.startswith(f"{words}:"), done.stderr
