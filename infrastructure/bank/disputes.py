"""The bank's disputes over HTTP, where it has any: its notices, read in order, and our answers to it."""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from domain.dispute import DisputeNotice, DisputeStatus
from domain.disputes import ACCEPTANCE, EVIDENCE, Notices, NotTold
from infrastructure.bank.client import CODE, BankClient, NoReply, NotSent, Reply
from infrastructure.bank.driver import BANK_ID, rfc3339_time

PATHS: Final[Mapping[str, str]] = {
    EVIDENCE: "/api/v1/dispute_evidence",
    ACCEPTANCE: "/api/v1/dispute_acceptances",
}
# What the bank says where there is nothing more to be heard: how it was decided comes as a notice.
TOO_LATE: Final = frozenset({"dispute_decided"})
TRIES: Final = 3
TERMS: Final = ("position", "amount", "reason", "status")
NEEDED: Final = frozenset({"dispute_id", "capture_id", "capture_key", *TERMS})

log = structlog.get_logger(__name__)


class BankDisputesOverHTTP:
    """The port `BankDisputes`, on a bank that has them."""

    def __init__(self, client: BankClient, *, timeout_seconds: float) -> None:
        self._client = client
        self._timeout_seconds = timeout_seconds

    def notices(self, after: int) -> Notices | NotTold:
        """The next, a hundred at most. One that cannot be read is not skipped: the rest waits for it."""
        for _ in range(TRIES):
            try:
                path = f"/api/v1/dispute_notices/{after}"
                reply = self._client.get(path, timeout_seconds=self._timeout_seconds)
            except (NotSent, NoReply) as error:
                return NotTold(f"no answer: {error}")
            if reply.status == 200 and reply.body is not None:
                return _notices(reply.body, after)
        return NotTold(f"HTTP {reply.status} {reply.code or 'without a code'}")

    def respond(self, kind: str, bank_dispute_id: str, key: str, evidence: str) -> NotTold | None:
        """Once, whatever was answered before: under the same key the bank does it once."""
        body = {"dispute_id": bank_dispute_id, "evidence": evidence}
        try:
            reply = self._client.post(PATHS[kind], key, body, timeout_seconds=self._timeout_seconds)
        except (NotSent, NoReply) as error:
            return NotTold(f"no answer: {error}")
        return None if _was_heard(reply) else NotTold(f"HTTP {reply.status} {reply.code}")


def _was_heard(reply: Reply) -> bool:
    return reply.status == 200 or reply.code in TOO_LATE


def _notices(body: Mapping[str, Any], after: int) -> Notices | NotTold:
    told, latest = body.get("notices"), body.get("latest")
    if not isinstance(told, list) or type(latest) is not int:
        return NotTold("these are no notices")
    notices = []
    for position, each in enumerate(told, start=after + 1):
        notice = _notice(each)
        if notice is None or notice.position != position:
            log.error("a notice of the bank's is unclear, or out of order", position=position)
            break
        notices.append(notice)
    if told and not notices:
        return NotTold("the next notice is unclear")
    return Notices(notices=notices, latest=latest)


def _notice(told: Any) -> DisputeNotice | None:
    """A notice that is one: no field is missing, and each is of its kind."""
    if not isinstance(told, dict) or not told.keys() >= NEEDED:
        return None
    ids = [told[name] for name in ("dispute_id", "capture_id", "capture_key")]
    position, amount, reason, status = (told[name] for name in TERMS)
    sound = (
        all(isinstance(each, str) and BANK_ID.fullmatch(each) for each in ids)
        and type(position) is int
        and type(amount) is int
        and amount > 0
        and isinstance(reason, str)
        and CODE.fullmatch(reason)
        and status in set(DisputeStatus)
    )
    if not sound:
        return None
    return DisputeNotice(
        position=position,
        bank_dispute_id=ids[0],
        bank_capture_id=ids[1],
        capture_key=ids[2],
        amount_minor=amount,
        reason=reason,
        status=DisputeStatus(status),
        evidence_due_by=rfc3339_time(told.get("evidence_due_by")),
    )
