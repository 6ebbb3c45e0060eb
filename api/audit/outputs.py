"""What the audit family answers."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from api.proofs import in_base64
from domain.aggregates import prefix_of
from domain.ids import Prefix, encode
from domain.payment import rfc3339
from infrastructure.audit.log import LoggedEvent
from infrastructure.checkpoint_keys import VerifierKey

Document = dict[str, Any]


def history_event(event: LoggedEvent) -> Document:
    """An event in its payment's history."""
    return {
        "id": encode(Prefix.EVENT, event.event_id),
        "position": event.position,
        "version": event.version,
        "type": event.topic,
        "at": event.at,
        "data": json.loads(event.state),
        "cause": cause(event.cause),
        "hash": None if event.hash is None else in_base64(event.hash),
    }


def whole_event(event: LoggedEvent) -> Document:
    """An event in the log, to whoever may see it."""
    assert event.leaf is not None, "it has a position"
    told = history_event(event)
    return {
        "position": told.pop("position"),
        "hash": told.pop("hash"),
        "id": told.pop("id"),
        "aggregate": aggregate_id(event.topic, event.aggregate),
        **told,
        "leaf": in_base64(event.leaf),
    }


def hidden_event(event: LoggedEvent) -> Document:
    """An event in the log, to everyone else."""
    assert event.hash is not None, "it has a position"
    return {"position": event.position, "hash": in_base64(event.hash)}


def aggregate_id(topic: str, aggregate: UUID) -> str:
    """The public id of what an event is of."""
    prefix = prefix_of(topic)
    return str(aggregate) if prefix is None else encode(prefix, aggregate)


def cause(text: str) -> Document:
    """Why, with what is not known as null."""
    known = json.loads(text)
    return {name: known.get(name) for name in ("request_id", "idempotency_key", "actor")}


def public_key(
    key: VerifierKey, first_used: datetime | None = None, last_used: datetime | None = None
) -> Document:
    """A public key."""
    return {
        "vkey": key.text,
        "name": key.name,
        "key_id": key.key_id.hex(),
        "pem": key.pem,
        "first_used": None if first_used is None else rfc3339(first_used),
        "last_used": None if last_used is None else rfc3339(last_used),
    }
