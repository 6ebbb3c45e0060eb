"""Our JavaScript module in Node, against the running system."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.sdk.a_shop import ApiKeys

FLOWS: Final = Path(__file__).with_name("javascript_flows.mjs")
NAMES: Final = re.findall(r"^  '([^']+)': async", FLOWS.read_text("utf-8"), re.MULTILINE)
OLDEST_NODE: Final = 18
TIMEOUT_SECONDS: Final = 40


def why_not() -> str | None:
    """Why Node cannot be asked on this machine; None if it can."""
    node = shutil.which("node")
    if node is None:
        return "there is no node on this machine"
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"v(\d+)", said.stdout)
    if found is None or int(found[1]) < OLDEST_NODE:
        return f"node is {said.stdout.strip()}, and {OLDEST_NODE} is needed"
    return None


WHY_NOT: Final = why_not()


@pytest.mark.parametrize("name", NAMES)
def test_the_module_works_in_node(
    name: str, keys: ApiKeys, api_base: str, pytestconfig: pytest.Config
) -> None:
    if WHY_NOT is not None and not pytestconfig.getoption("--proofs"):
        pytest.skip(WHY_NOT)
    assert WHY_NOT is None
    node = shutil.which("node")
    assert node is not None

    done = subprocess.run(
        [node, str(FLOWS), name],
        env={
            "API_BASE": api_base,
            "PUBLISHABLE_KEY": keys.publishable,
            "SECRET_KEY": keys.secret,
        },
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_flows_to_run() -> None:
    assert len(NAMES) > 15
