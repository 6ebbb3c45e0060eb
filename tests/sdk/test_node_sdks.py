"""Stripe's official package for Node as it is published, and our own module, against the running
system."""

from pathlib import Path
from typing import Any, Final

import pytest

from scripts.sdk_flows import NODE_FOLDER, flows_in_javascript
from tests.sdk.node_flows import PATIENT, Node

STRIPES: Final = "stripe_flows.mjs"
OURS: Final = "our_flows.mjs"
IN_A_BROWSER: Final = "browser_flows.mjs"


@PATIENT
@pytest.mark.parametrize("name", flows_in_javascript(NODE_FOLDER / STRIPES))
def test_stripes_own_package_works_in_node(
    name: str, node_with_packages: Node, shop: dict[str, Any]
) -> None:
    node_with_packages.run(STRIPES, name, **shop)


@pytest.mark.parametrize("name", flows_in_javascript(NODE_FOLDER / OURS))
def test_our_module_works_in_node(name: str, node: Node, shop: dict[str, Any]) -> None:
    node.run(OURS, name, **shop)


@PATIENT
@pytest.mark.parametrize("name", flows_in_javascript(NODE_FOLDER / IN_A_BROWSER))
def test_our_module_works_in_a_browser(
    name: str, node_with_packages: Node, shop: dict[str, Any], browser: dict[str, Any]
) -> None:
    node_with_packages.run(IN_A_BROWSER, name, **browser, **shop)


@PATIENT
@pytest.mark.parametrize("file", sorted(each.name for each in NODE_FOLDER.glob("*_flows.mjs")))
def test_every_flow_is_a_test(file: str, node_with_packages: Node) -> None:
    assert flows_in_javascript(NODE_FOLDER / file) == node_with_packages.names(file)


def test_a_flow_that_fails_fails_its_test(node: Node, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.mjs"
    wrong.write_text(
        "export const flows = new Map([\n"
        "  ['says no', async () => { throw new Error('no'); }],\n"
        "  ['takes Node down', async () => { process.exit(3); }],\n"
        "]);\n"
    )
    file = str(wrong)

    with pytest.raises(AssertionError, match="Error: no"):
        node.run(file, "says no")
    with pytest.raises(pytest.fail.Exception, match="Node died"):
        node.run(file, "takes Node down")
    assert node.names(OURS)
