"""The audit family's routes: what an auditor needs to check everything and trust nobody."""

from typing import Any, Final
from uuid import UUID

from api.audit import outputs
from api.audit.inputs import LogQuery, ProofQuery
from api.audit.schemas import (
    AuditEventList,
    AuditKeyOut,
    CheckpointOut,
    HistoryOut,
    ProofOut,
)
from api.errors import invalid
from api.http import Answer, Call, Route, json_answer
from api.proofs import in_base64, inclusion_of
from domain.errors import CheckpointNotFound, PaymentNotFound, PositionNotFound
from domain.evidence import read_checkpoint
from domain.ids import MalformedId, Prefix, decode
from infrastructure.api_keys import EVERY_MERCHANT, Scope
from infrastructure.audit import checkpoints, log, tree
from infrastructure.audit.checkpoints import Signed
from infrastructure.audit.notes import read_note
from infrastructure.checkpoint_keys import witness_keys
from infrastructure.shards import shard_of
from projections.receipts import Receipts

FAMILY: Final = "audit"
TEXT: Final = "text/plain"
RECEIPTS: Final = Receipts()


def get_history(call: Call, _query: None, *, payment_id: str) -> Answer:
    """Every event of a payment."""
    uuid = _seen_payment(call, payment_id)
    with call.services.pool.connection() as connection:
        events = log.history(connection, uuid)
    return json_answer(
        200, _listed(call, [outputs.history_event(each) for each in events], next_cursor=None)
    )


def get_checkpoint(call: Call, _query: None) -> Answer:
    """The signed head of the log."""
    whole = _last(call).whole.encode()
    return Answer(status=200, body=whole, media_type=f"{TEXT}; charset=utf-8")


def get_key(call: Call, _query: None) -> Answer:
    """What checkpoints are verified with."""
    with call.services.pool.connection() as connection:
        known = checkpoints.known_keys(connection)
    last = _last(call)
    witnesses = witness_keys(call.services.settings.checkpoint_witnesses)
    told = {key.text: outputs.public_key(key, first, used) for key, first, used in known}
    body = {
        **told[last.keys[0]],
        "object": "audit_key",
        "origin": read_checkpoint(read_note(last.note).text).origin,
        "keys": list(told.values()),
        "witnesses": [outputs.public_key(key) for key in witnesses],
    }
    return json_answer(200, body)


def list_log(call: Call, query: LogQuery) -> Answer:
    """The log itself."""
    since = 0 if query.after is None else query.after + 1
    with call.services.pool.connection() as connection:
        events, has_more = log.page(connection, since, query.limit)
        owners = log.owners(connection, events)
    sees_all = _sees_all(call)
    shown = [
        outputs.whole_event(each)
        if sees_all or owners.get(each.aggregate) == call.tenant
        else outputs.hidden_event(each)
        for each in events
    ]
    return json_answer(
        200,
        _listed(call, shown, next_cursor=str(shown[-1]["position"]) if has_more else None),
    )


def get_proof(call: Call, query: ProofQuery) -> Answer:
    """That the log has an event, or that it only ever grew."""
    if query.position is None:
        return _consistency(call, query)
    if query.old is not None or query.new is not None:
        raise invalid("invalid_param", "Give position, or from and to, not both.", "position")
    with call.services.pool.connection() as connection:
        body = inclusion_of(connection, query.position)
    if body is None:
        raise PositionNotFound("No checkpoint covers this position.", param="position")
    return json_answer(200, body)


def _consistency(call: Call, query: ProofQuery) -> Answer:
    old, new = query.old, query.new
    if old is None or new is None:
        missing = (
            ("from" if new is not None else "to") if (old, new) != (None, None) else "position"
        )
        raise invalid("missing_param", f"{missing} is required.", missing)
    if old > new:
        raise invalid("invalid_param", "from must not be greater than to.", "from")
    with call.services.pool.connection() as connection:
        if new > log.covered(connection):
            raise PositionNotFound("No checkpoint covers so many events.", param="to")
        hashes = tree.consistency(connection, old, new)
    body = {"from": old, "to": new, "hashes": [in_base64(each) for each in hashes]}
    return json_answer(200, body)


def _seen_payment(call: Call, payment_id: str) -> UUID:
    """The payment, where the key may see it: an auditor's sees all. Raises PaymentNotFound."""
    try:
        uuid = decode(Prefix.PAYMENT, payment_id)
    except MalformedId as error:
        raise PaymentNotFound("There is no such payment.") from error
    with call.services.pool.connection() as connection:
        owner = RECEIPTS.owner(connection, shard_of(uuid), uuid)
    if owner is None or not (_sees_all(call) or owner == call.tenant):
        raise PaymentNotFound("There is no such payment.")
    return uuid


def _sees_all(call: Call) -> bool:
    return call.key.merchant == EVERY_MERCHANT


def _last(call: Call) -> Signed:
    with call.services.pool.connection() as connection:
        found = checkpoints.last(connection)
    if found is None:
        raise CheckpointNotFound("No checkpoint was signed yet.")
    return found


def _listed(call: Call, data: list[dict[str, Any]], *, next_cursor: str | None) -> dict[str, Any]:
    return {
        "object": "list",
        "data": data,
        "has_more": next_cursor is not None,
        "next_cursor": next_cursor,
        "url": call.path,
    }


ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/payments/<payment_id>/history",
        handler=get_history,
        scope=Scope.PAYMENTS_READ,
        or_scopes=(Scope.AUDIT_READ,),
        summary="Every event of a payment, with its cause",
        family=FAMILY,
        answers={200: HistoryOut},
    ),
    Route(
        method="GET",
        path="/v1/audit/checkpoint",
        handler=get_checkpoint,
        scope=Scope.AUDIT_READ,
        summary="The signed head of the whole log",
        family=FAMILY,
        answers={200: CheckpointOut},
        media_type=TEXT,
    ),
    Route(
        method="GET",
        path="/v1/audit/key",
        handler=get_key,
        scope=Scope.AUDIT_READ,
        summary="The public keys that checkpoints are verified with",
        family=FAMILY,
        answers={200: AuditKeyOut},
    ),
    Route(
        method="GET",
        path="/v1/audit/events",
        handler=list_log,
        query=LogQuery,
        scope=Scope.AUDIT_READ,
        summary="The log itself, in order: one's own events whole, others' as hashes",
        family=FAMILY,
        answers={200: AuditEventList},
    ),
    Route(
        method="GET",
        path="/v1/audit/proof",
        handler=get_proof,
        query=ProofQuery,
        scope=Scope.AUDIT_READ,
        summary="That the log has an event, or that it only ever grew",
        family=FAMILY,
        answers={200: ProofOut},
    ),
)
