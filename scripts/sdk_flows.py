"""Prints docs/sdk-flows.md from the flows themselves: what is tried with which package.

Run `.venv/bin/python -m scripts.sdk_flows > docs/sdk-flows.md`.
"""

import ast
import re
from pathlib import Path
from typing import Final

SDK_TESTS: Final = Path(__file__).resolve().parent.parent / "tests" / "sdk"
NODE_FOLDER: Final = SDK_TESTS / "node"
STRIPE_PYTHON: Final = SDK_TESTS / "stripe_flows.py"
STRIPE_NODE: Final = NODE_FOLDER / "stripe_flows.mjs"
OUR_PYTHON: Final = SDK_TESTS / "test_python_sdk.py"
OUR_JAVASCRIPT: Final = NODE_FOLDER / "our_flows.mjs"
OUR_BROWSER: Final = NODE_FOLDER / "browser_flows.mjs"

# flow('name', …), at the beginning of a line.
JAVASCRIPT_FLOW: Final = re.compile(r"""^flow\(\s*(['"])(?P<name>.+?)\1,""", re.MULTILINE)

INTRODUCTION: Final = """\
# What the SDKs are tried with

Each line is a flow that runs against the whole system (API, worker, bank simulator in its extended
profile) with every run of the tests: `yes` has to pass, or the run fails. An empty cell is a flow that
is not tried there.
"""


def page() -> str:
    """The whole page, in Markdown."""
    python, node = flows_in_python(STRIPE_PYTHON), flows_in_javascript(STRIPE_NODE)
    return "\n".join([INTRODUCTION, *_stripes(python, node), "", *_ours()]) + "\n"


def flows_in_python(file: Path) -> list[str]:
    """What `flow("name")` names, in its order in the file."""
    tree = ast.parse(file.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_flow(node)]
    calls.sort(key=lambda call: call.lineno)
    return [ast.literal_eval(call.args[0]) for call in calls]


def flows_in_javascript(file: Path) -> list[str]:
    """What `flow('name', …)` names, in its order in the file."""
    return [match["name"] for match in JAVASCRIPT_FLOW.finditer(file.read_text("utf-8"))]


def _is_flow(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "flow"


def _stripes(python: list[str], node: list[str]) -> list[str]:
    """Both of Stripe's packages, the same flow in one row."""
    names = list(dict.fromkeys([*python, *node]))
    rows = [
        [name, *("yes" if name in tried else "" for tried in (python, node))]
        for name in _grouped(names)
    ]
    return [
        "## Stripe's own packages, as they are published",
        "",
        f"{len(python)} flows in Python, {len(node)} in Node.",
        "",
        *_table(["flow", "Python", "Node"], rows),
    ]


def _grouped(names: list[str]) -> list[str]:
    """Those of one subject together: what comes before the colon, in the order of first mention."""
    subjects = list(dict.fromkeys(_subject(name) for name in names))
    return sorted(names, key=lambda name: subjects.index(_subject(name)))


def _subject(name: str) -> str:
    return name.partition(":")[0]


def _ours() -> list[str]:
    kinds = {
        "Python": _tests_in(OUR_PYTHON),
        "JavaScript, in Node": flows_in_javascript(OUR_JAVASCRIPT),
        "JavaScript, in a browser": flows_in_javascript(OUR_BROWSER),
    }
    rows = [[name, kind] for kind, names in kinds.items() for name in names]
    return ["## Our own", "", *_table(["flow", "with"], rows)]


def _tests_in(file: Path) -> list[str]:
    """The rules that are tested there, in words."""
    tree = ast.parse(file.read_text("utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    tests = [name.removeprefix("test_") for name in names if name.startswith("test_")]
    return [name.replace("_", " ") for name in tests]


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [_row(head), "|" + "---|" * len(head), *map(_row, rows)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    print(page(), end="")
