"""Prints what docs/payments.md begins with, from the one table of what is allowed in which status.

Run `.venv/bin/python -m scripts.diagram`, and put it in the place of what is there; the rest is written
by hand.
"""

from domain.bank import Operation
from domain.payment import ALLOWED, COMMANDS_BY_STATUS, Status

LIFECYCLE = """\
stateDiagram-v2
    [*] --> pending
    pending --> authorized
    pending --> declined
    pending --> captured: by a transfer
    authorized --> captured: capture
    authorized --> voided: void
    authorized --> expired: too late
    captured --> refunded: refund, all of it
"""


def page() -> str:
    """What the page begins with, in Markdown."""
    lines = [
        "# A payment's life",
        "",
        "```mermaid",
        LIFECYCLE.rstrip(),
        "```",
        "",
        "What each command is answered in each status, once no operation is running (while one is,",
        "every command is refused with `operation_in_progress`). A refusal is HTTP 409 with this code,",
        "and nothing reaches the bank. A payment of which a part was refunded is still `captured`.",
        "",
        "| | " + " | ".join(Status) + " |",
        "|---|" + "---|" * len(Status),
    ]
    lines += [_row(operation) for operation in COMMANDS_BY_STATUS]
    return "\n".join(lines) + "\n"


def _row(operation: Operation) -> str:
    codes = [COMMANDS_BY_STATUS[operation][status] for status in Status]
    cells = ["yes" if code == ALLOWED else f"`{code}`" for code in codes]
    return f"| {operation} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(page(), end="")
