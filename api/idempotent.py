"""Commands, once each: the first answer again for the same request, and a no for another.

The claim itself is made by the ledger, in the transaction that records the first event. Here is only
what happens around it: replay, or wait for the first.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from api.bodies import canonical
from api.errors import ApiError, in_progress, key_reused
from api.http import Answer, Call, PendingAnswer
from domain.commands import Claim
from domain.errors import ConcurrentChange, DomainError, KeyAlreadyClaimed
from domain.ledger import Pending, Reply, Settled
from domain.payment import Payment
from domain.records import StoredAnswer
from infrastructure.database import UNAVAILABLE
from infrastructure.fault_points import reached
from infrastructure.idempotency import SEALED, Claimed

# How long a second request waits for the first to finish, and how often it looks.
WAIT_SECONDS: Final = 4.0
FIRST_LOOK_SECONDS: Final = 0.05
LONGEST_LOOK_SECONDS: Final = 0.4
REPLAYED: Final = {"Idempotent-Replayed": "true"}


def once(
    call: Call,
    method: str,
    body: dict[str, Any],
    ask: Callable[[], Reply],
    pending: PendingAnswer | None,
) -> Answer:
    """Gives the command to the ledger, and the first answer to whoever was not the first to ask.

    Nobody looks before the claim, which finds out by itself. But before a refusal is told, it is
    looked whether the same request was what it is refused for. Raises ApiError when the key is
    another request's, or its first request is still at work; and what `ask` raises.
    """
    text = canonical(_asked(call, method, body))
    if call.idempotency_key is not None:
        fingerprint = call.services.fingerprints.of(text)
        call.claim = Claim(tenant=call.tenant, key=call.idempotency_key, fingerprint=fingerprint)
    reached("command.begun")
    try:
        reply = ask()
    except (ApiError, DomainError, KeyAlreadyClaimed, ConcurrentChange):
        answer = _replay(call, text, pending)
        if answer is None:
            raise
        return answer
    match reply:
        case Settled(answer=stored):
            return Answer(status=stored.status, body=stored.body, headers=dict(stored.headers))
        case Pending(history=history, taken_over=taken_over):
            return (_settled_by_another(call) if taken_over else None) or _pending(
                call, pending, history
            )


def _asked(call: Call, method: str, body: dict[str, Any]) -> list[Any]:
    """What is the same when the request is."""
    said = {} if call.query is None else call.query.model_dump(exclude_defaults=True)
    return [method, call.path, body, *([said] if said else [])]


def _replay(call: Call, text: bytes, pending: PendingAnswer | None) -> Answer | None:
    """The answer to a request that was made before, or None for one that was not."""
    clock, look = call.services.clock, FIRST_LOOK_SECONDS
    give_up_at = min(clock.monotonic() + WAIT_SECONDS, call.deadline - LONGEST_LOOK_SECONDS)
    while True:
        claimed = _find(call)
        if claimed is None:
            return None
        if not call.services.fingerprints.matches(claimed.fingerprint, text):
            raise key_reused()
        answer = _answer_now(call, claimed, pending)
        if answer is not None:
            return answer
        if clock.monotonic() + look > give_up_at:
            raise in_progress()
        time.sleep(look)
        look = min(look * 1.5, LONGEST_LOOK_SECONDS)


def sealed(call: Call, answer: StoredAnswer) -> StoredAnswer:
    """An answer that shows a secret, as it is to be kept: only the vault can tell it again."""
    body = call.services.vault.seal_secret(answer.body)
    return replace(answer, body=body, headers=(*answer.headers, (SEALED, "vault")))


def _settled_by_another(call: Call) -> Answer | None:
    """The answer to our own request, if who took it over has written it."""
    try:
        claimed = _find(call)
    except UNAVAILABLE:
        return None
    return None if claimed is None else _stored(call, claimed)


def _find(call: Call) -> Claimed | None:
    if call.idempotency_key is None:
        return None
    return call.services.idempotency_keys.find(call.tenant, call.idempotency_key)


def _answer_now(call: Call, claimed: Claimed, pending: PendingAnswer | None) -> Answer | None:
    """The stored answer, or a 202 once nobody is at it, or None: somebody is."""
    if claimed.answer is not None or not claimed.pending:
        return _stored(call, claimed)
    payment = call.services.ledger.payment(claimed.payment_id, call.tenant)
    # Its outcome may have come, and the payment's next operation, before the payment was read.
    return _stored(call, _find(call) or claimed) or _pending(call, pending, payment.history)


def _stored(call: Call, claimed: Claimed) -> Answer | None:
    """The stored answer, byte for byte; None while there is none."""
    if claimed.answer is None:
        return None
    headers, body = dict(claimed.answer.headers), claimed.answer.body
    if headers.pop(SEALED, None) is not None:
        body = call.services.vault.unseal_secret(body)
    return Answer(status=claimed.answer.status, body=body, headers={**headers, **REPLAYED})


def _pending(call: Call, pending: PendingAnswer | None, history: Sequence[Payment.Event]) -> Answer:
    assert pending is not None, "what asks the bank says how it is told that there is no outcome"
    return pending(call, history)
