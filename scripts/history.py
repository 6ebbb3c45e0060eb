"""`counterfoil history`: what happened to a payment, why, by whom, and what it changed."""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import click

from domain.ids import MalformedId, Prefix, decode
from infrastructure.api_keys import ApiKeys
from infrastructure.audit import log
from infrastructure.audit.log import LoggedEvent
from infrastructure.clock import RandomIds, SystemClock
from infrastructure.database import Pool
from infrastructure.histories import histories
from projections.receipts import fold
from scripts.console import NOT_DONE, connected, moment_or_exit, refuse, settings_or_exit

# What every event changes by being one is no change to tell.
OF_EVERY_EVENT: Final = frozenset({"object", "updated_at", "version", "timeline"})

Document = dict[str, Any]


@click.command("history")
@click.argument("payment")
@click.option("--as-of", help="Up to then: 2026-11-20, or RFC 3339.")
@click.option("--version", type=click.IntRange(1), help="Up to this event.")
@click.option("--json", "as_json", is_flag=True)
def history_command(payment: str, *, as_of: str | None, version: int | None, as_json: bool) -> None:
    """A payment's events: why and by whom each was, and what it changed. PAYMENT: pay_…

    With --as-of or --version: as it stood then. Exit status: 1 if there was no such payment.
    """
    if as_of is not None and version is not None:
        refuse("give --as-of or --version, not both")
    moment = moment_or_exit(as_of, "--as-of")
    try:
        uuid = decode(Prefix.PAYMENT, payment)
    except MalformedId:
        refuse(f"{payment} is not the id of a payment: pay_…")
    with connected(settings_or_exit()) as pool:
        told = history_of(pool, uuid, upto=version, moment=moment)
    if told is None:
        refuse(f"there is no payment {payment}, or there was none then", NOT_DONE)
    click.echo(json.dumps(told) if as_json else in_words(told))


def history_of(
    pool: Pool, payment_id: UUID, *, upto: int | None, moment: datetime | None
) -> Document | None:
    """The events and the receipt that they come to; None where there are none."""
    from api.gateway.outputs import receipt as published  # after the metrics' folder is known

    with pool.connection() as connection:
        recorded = log.history(connection, payment_id)
        events = [each.event for each in histories(connection, [payment_id])[payment_id]]
    if moment is not None:
        upto = sum(event.timestamp <= moment for event in events)
    if upto is not None and upto > len(events):
        return None
    events = events[:upto]
    receipts = [published(fold(events[:place])) for place in range(1, len(events) + 1)]
    if not receipts:
        return None
    who = names_of_keys(pool)
    return {
        "payment_id": receipts[-1]["payment_id"],
        "events": [
            told_event(event, who, dict(changes(before, after)))
            for event, before, after in zip(recorded, [{}, *receipts], receipts, strict=False)
        ],
        "receipt": receipts[-1],
    }


def told_event(event: LoggedEvent, who: dict[str, str], changed: Document) -> Document:
    """As the API tells it, with who it was and what it changed."""
    from api.audit.outputs import history_event

    told = history_event(event)
    return {**told, "who": who.get(told["cause"]["actor"]), "changes": changed}


def names_of_keys(pool: Pool) -> dict[str, str]:
    """The merchants' names, by the keys by which they may be the cause of something."""
    keys = ApiKeys(pool, SystemClock(), RandomIds()).all()
    return {key.key_id: key.merchant for key in keys}


def changes(before: Document, after: Document, within: str = "") -> Iterator[tuple[str, list[Any]]]:
    """What became of each field of a receipt, by its whole name: before, and after."""
    for name, value in after.items():
        old, full = before.get(name), f"{within}{name}"
        if full in OF_EVERY_EVENT or old == value:
            continue
        if isinstance(value, dict):
            yield from changes(old if isinstance(old, dict) else {}, value, f"{full}.")
        else:
            yield full, [old, value]


# --- in words -----------------------------------------------------------------------------------


def in_words(told: Document) -> str:
    """For people."""
    events: Sequence[Document] = told["events"]
    receipt = told["receipt"]
    parts = ["\n".join(lines_of(event)) for event in events]
    end = f"{told['payment_id']} is {receipt['status']}: version {receipt['version']}"
    return "\n\n".join([*parts, end])


def lines_of(event: Document) -> Iterator[str]:
    """One event: what, when, where; why and by whom; what it changed."""
    place = "not sealed yet" if event["position"] is None else f"position {event['position']}"
    yield f"{event['version']}  {event['at']}  {event['type']}  ({place})"
    cause = event["cause"]
    yield "   by " + ", ".join(
        [
            cause["actor"] + (f" of {event['who']}" if event["who"] else ""),
            *(f"{name} {cause[name]}" for name in ("request_id", "idempotency_key") if cause[name]),
        ]
    )
    if event["hash"]:
        yield f"   hash {event['hash']}"
    for name, (old, new) in event["changes"].items():
        yield f"   {name}: {shown(old)} -> {shown(new)}"


def shown(value: Any) -> str:
    """One value of a receipt."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
