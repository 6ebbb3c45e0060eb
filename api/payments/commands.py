"""What commands that ask nothing of the bank have in common: read, decide, record, answer, at once."""

from collections.abc import Sequence
from typing import Any, TypeVar
from uuid import UUID

from eventsourcing.application import AggregateNotFoundError
from eventsourcing.domain import Aggregate

from api.errors import invalid
from api.fields import MAX_METADATA_KEYS
from api.http import Answer, Call, json_answer
from api.payments.expand import expanded
from api.payments.inputs import missing, uuid_of
from api.payments.reading import CUSTOMERS, Reader
from domain.commands import Metadata
from domain.ids import Prefix
from domain.ledger import Settled
from domain.records import Record, StoredAnswer, claimed_by

Kind = TypeVar("Kind", bound=Aggregate)


def versioned(call: Call, kind: type[Kind], aggregate_id: UUID) -> Kind | None:
    """The aggregate as it is, to be changed; None where this tenant has none such."""
    try:
        found: Any = call.services.ledger.repository.get(aggregate_id)
    except AggregateNotFoundError:
        return None
    return found if isinstance(found, kind) and found.tenant == call.tenant else None  # type: ignore[attr-defined]


def none_if_deleted(call: Call, kind: type[Kind], prefix: Prefix, public_id: str) -> Kind:
    """The aggregate that a public id names. Raises NotFound, also for a deleted one."""
    found = versioned(call, kind, uuid_of(prefix, public_id))
    if found is None or getattr(found, "is_deleted", False):
        raise missing(prefix)
    return found


def existing_customer(call: Call, public_id: str, param: str) -> None:
    """Raises CustomerNotFound where there is none, or none any more."""
    record = Reader(call.services, call.tenant).record(CUSTOMERS, Prefix.CUSTOMER, public_id, param)
    if record["is_deleted"]:
        raise missing(Prefix.CUSTOMER, param)


def done(
    call: Call,
    aggregate: Aggregate,
    body: dict[str, Any] | None,
    *records: Record,
    status: int = 200,
) -> Settled:
    """Records what is new of `aggregate`, with `records`, and answers `body`: once, whatever happens.
    Of what changes nothing, the idempotency key alone is kept, and the answer."""
    answer = Answer(status=status, body=b"")
    if body is not None:
        whole = expanded(body, call.expand, Reader(call.services, call.tenant))
        answer = json_answer(status, whole)
    stored = answer.stored()
    return recorded(call, (aggregate,), stored, records)


def recorded(
    call: Call,
    aggregates: Sequence[Aggregate],
    answer: StoredAnswer,
    records: Sequence[Record],
) -> Settled:
    """The same for an answer that is made, and several aggregates of one shard, of which the request is
    about the first."""
    claims = claimed_by(call.claim, call.cause, aggregates[0].id, answer)
    if any(each.pending_events for each in aggregates):
        call.services.ledger.record(aggregates, call.cause, [*claims, *records])
    else:
        for each in claims:
            call.services.idempotency_keys.keep(each)
    return Settled(answer=answer, history=())


def set_in(before: Metadata, given: Metadata | str | None) -> dict[str, Any]:
    """Metadata, merged: an empty text removes a key, and in the place of all of it, all keys. Raises
    ApiError where there are too many then."""
    if given == "":
        return {}
    assert not isinstance(given, str), "an empty text is the only one"
    merged = {name: value for name, value in {**before, **(given or {})}.items() if value != ""}
    if len(merged) > MAX_METADATA_KEYS:
        limit = f"metadata may have at most {MAX_METADATA_KEYS} keys, those that it has included."
        raise invalid("invalid_param", limit, "metadata")
    return merged
