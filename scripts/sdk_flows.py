"""Prints docs/sdk-flows.md from the flows themselves: what is tried with which package.

Run `.venv/bin/python -m scripts.sdk_flows > docs/sdk-flows.md`.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SDK_TESTS: Final = Path(__file__).resolve().parent.parent / "tests" / "sdk"
NODE_FOLDER: Final = SDK_TESTS / "node"
STRIPE_PYTHON: Final = SDK_TESTS / "stripe_flows.py"
STRIPE_NODE: Final = NODE_FOLDER / "stripe_flows.mjs"
OUR_PYTHON: Final = SDK_TESTS / "test_python_sdk.py"
OUR_JAVASCRIPT: Final = NODE_FOLDER / "our_flows.mjs"
OUR_BROWSER: Final = NODE_FOLDER / "browser_flows.mjs"

# flow('name', …) or flow('name', { broken: 'why' }, …), at the beginning of a line.
JAVASCRIPT_FLOW: Final = re.compile(
    r"""^flow\(\s*(['"])(?P<name>.+?)\1,(?:\s*\{\s*broken:\s*(['"])(?P<broken>.+?)\3,?\s*\},)?""",
    re.MULTILINE,
)

INTRODUCTION: Final = """\
# What the SDKs are tried with

Each line is a flow that runs against the whole system (API, worker, bank simulator in its extended
profile) with every run of the tests: `yes` has to pass, or the run fails; a reason stands where a flow
cannot pass yet, and then the run fails if it does. An empty cell is a flow that is not tried there.
"""


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow, and why it cannot pass yet."""

    name: str
    broken: str | None = None

    @property
    def cell(self) -> str:
        return "yes" if self.broken is None else f"not yet: {self.broken}"


def page() -> str:
    """The whole page, in Markdown."""
    python, node = flows_in_python(STRIPE_PYTHON), flows_in_javascript(STRIPE_NODE)
    return "\n".join([INTRODUCTION, *_stripes(python, node), "", *_ours()]) + "\n"


def flows_in_python(file: Path) -> list[Flow]:
    """What `flow("name", broken="why")` names, in its order in the file."""
    tree = ast.parse(file.read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_flow(node)]
    return [_flow_of(call) for call in sorted(calls, key=lambda call: call.lineno)]


def flows_in_javascript(file: Path) -> list[Flow]:
    """What `flow('name', { broken: 'why' }, …)` names, in its order in the file."""
    found = JAVASCRIPT_FLOW.finditer(file.read_text("utf-8"))
    return [Flow(match["name"], match["broken"]) for match in found]


def _is_flow(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "flow"


def _flow_of(call: ast.Call) -> Flow:
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    return Flow(ast.literal_eval(call.args[0]), given.get("broken"))


def _stripes(python: list[Flow], node: list[Flow]) -> list[str]:
    """Both of Stripe's packages, the same flow in one row."""
    columns = [{flow.name: flow for flow in flows} for flows in (python, node)]
    names = list(dict.fromkeys(flow.name for flow in [*python, *node]))
    rows = [[name, *(_cell(column.get(name)) for column in columns)] for name in _grouped(names)]
    passing = [sum(flow.broken is None for flow in flows) for flows in (python, node)]
    return [
        "## Stripe's own packages, as they are published",
        "",
        f"{passing[0]} of {len(python)} flows pass in Python, {passing[1]} of {len(node)} in Node.",
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
        "Python": [Flow(name) for name in _tests_in(OUR_PYTHON)],
        "JavaScript, in Node": flows_in_javascript(OUR_JAVASCRIPT),
        "JavaScript, in a browser": flows_in_javascript(OUR_BROWSER),
    }
    rows = [[flow.name, kind, flow.cell] for kind, flows in kinds.items() for flow in flows]
    return ["## Our own", "", *_table(["flow", "with", "passes"], rows)]


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


def _cell(flow: Flow | None) -> str:
    return "" if flow is None else flow.cell


if __name__ == "__main__":
    print(page(), end="")
