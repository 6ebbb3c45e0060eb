"""The documents say what the code says."""

import inspect
from pathlib import Path

from domain.payment import Payment
from scripts import diagram, sdk_flows

ROOT = Path(__file__).parents[2]
LONGEST_TRADEOFFS_WORDS = 1000


def test_the_table_of_commands_is_printed_from_the_code() -> None:
    assert (ROOT / "docs" / "payments.md").read_text("utf-8").startswith(diagram.page())


def test_the_table_of_flows_is_printed_from_the_flows() -> None:
    assert (ROOT / "docs" / "sdk-flows.md").read_text("utf-8") == sdk_flows.page()


def test_every_topic_is_documented_with_its_fields() -> None:
    text = (ROOT / "docs" / "events.md").read_text("utf-8")
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if "`payment." in line}

    classes = [each for each in vars(Payment).values() if inspect.isclass(each)]
    every = {each for each in classes if issubclass(each, Payment.Event)}
    # The base class and one that the library adds are of no topic of their own, and never recorded.
    events = {each for each in every if each.TOPIC != Payment.Event.TOPIC}
    for event in events:
        missing = [
            f for f in vars(event)["__annotations__"] if f"`{f}`" not in rows[f"`{event.TOPIC}`"]
        ]
        assert missing == [], event.TOPIC
    assert len(rows) == len(events)


def test_the_trade_offs_fit_their_thousand_words() -> None:
    words = (ROOT / "TRADEOFFS.md").read_text("utf-8").split()

    assert len(words) <= LONGEST_TRADEOFFS_WORDS
