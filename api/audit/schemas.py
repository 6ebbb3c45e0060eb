"""The shapes of what the audit family answers."""

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from api.schemas import Base64, InclusionOut, ListOut, Moment, Out

EventId = Annotated[str, Field(pattern=r"^evt_[0-9a-z]{26}$")]
Size = Annotated[int, Field(ge=0)]


class CauseOut(Out):
    """Why an event was recorded, and by whom: an API key's id, `worker`, or an operator."""

    request_id: str | None
    idempotency_key: str | None
    actor: str


class HistoryEventOut(Out):
    """One event of a payment. `position`, `hash`: null until a signed checkpoint covers it."""

    id: EventId
    position: Size | None
    version: Annotated[int, Field(ge=1)]
    type: str
    at: Moment
    data: dict[str, Any]
    cause: CauseOut
    hash: Base64 | None


class HistoryOut(ListOut):
    """Every event of a payment, in order."""

    data: list[HistoryEventOut]


class SealedEventOut(Out):
    """An event of another's: where it is, and the hash of its leaf."""

    position: Size
    hash: Base64


class AuditEventOut(SealedEventOut):
    """An event. `aggregate`: what it is of. `leaf`: the very bytes that `hash` is of."""

    id: EventId
    aggregate: str
    version: Annotated[int, Field(ge=1)]
    type: str
    at: Moment
    data: dict[str, Any]
    cause: CauseOut
    leaf: Base64


class AuditEventList(ListOut):
    """A part of the log, in order; what is another merchant's is a position and a hash."""

    data: list[AuditEventOut | SealedEventOut]


class ConsistencyOut(Out):
    """That the log of one size is the beginning of the log of another (RFC 6962, 2.1.2)."""

    old: Annotated[Size, Field(alias="from")]
    new: Annotated[Size, Field(alias="to")]
    hashes: list[Base64]


class ProofOut(RootModel[InclusionOut | ConsistencyOut]):
    """Inclusion of an event, or consistency of two trees."""


class CheckpointOut(RootModel[str]):
    """A C2SP checkpoint: a signed note of the log's name, its size and its root."""


class PublicKeyOut(Out):
    """A public key: as tools for signed notes take it, and bare. `last_used`: null for a witness's."""

    vkey: str
    name: str
    key_id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    pem: str
    first_used: Moment | None
    last_used: Moment | None


class AuditKeyOut(PublicKeyOut):
    """The key that signed last, and every key that ever signed, oldest first; witnesses' keys."""

    object: Literal["audit_key"]
    origin: str
    keys: list[PublicKeyOut]
    witnesses: list[PublicKeyOut]
