"""A log with payments in it, sealed and signed, and what is said of it by the plainest means."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, LiteralString

from psycopg import Connection
from psycopg.rows import DictRow

from domain.evidence import Leaf, leaf_bytes, leaf_hash
from domain.payment import Payment
from infrastructure.audit.checkpoints import Signed, cosign
from infrastructure.audit.duties import Sealing
from infrastructure.checkpoint_keys import (
    COSIGNATURE,
    SigningKey,
    VerifierKey,
    new_signing_key,
    signing_keys,
    witness_keys,
)
from infrastructure.clock import SystemClock
from infrastructure.database import Pool
from infrastructure.settings import Settings, read_settings
from tests.builders import Story, a_payment
from tests.infrastructure.projections.a_log import append

ORIGIN: Final = "ledger.example/log"
WHOLE_LOG: Final[LiteralString] = """
    SELECT r.position + e.position - r.shard_position AS place, e.shard, e.position,
           e.event_id::text, e.originator_id::text, e.originator_version, e.topic,
           e.recorded_at, e.state, e.cause
    FROM audit_runs r JOIN events e
      ON e.shard = r.shard AND e.position >= r.shard_position
     AND e.position < r.shard_position + r.events
    ORDER BY place
"""


def audit_settings(folder: Path, **environ: str) -> Settings:
    """With a key of its own and an origin; nothing is signed but when it is asked for."""
    own = {
        "DATA_DIR": str(folder),
        "CHECKPOINT_ORIGIN": ORIGIN,
        "CHECKPOINT_EVERY_SECONDS": "0",
    }
    return read_settings({**own, **environ})


def payments(number: int) -> list[Payment]:
    """Of two events each."""
    return [Story(a_payment()).authorized().payment for _ in range(number)]


@dataclass
class SealedLog:
    """A log, and one who seals it."""

    pool: Pool
    settings: Settings
    sealing: Sealing = field(init=False)

    def __post_init__(self) -> None:
        self.sealing = Sealing(self.pool, self.settings, SystemClock())

    def append(self, number: int = 1) -> None:
        append(self.pool, *payments(number))

    def signed(self) -> Signed:
        return self.sealing.seal_and_sign()

    def cosign(self, whole: str) -> list[str]:
        """As `counterfoil checkpoint cosign` does."""
        witnesses = witness_keys(self.settings.checkpoint_witnesses)
        with self.pool.connection() as connection:
            return cosign(connection, whole, witnesses, SystemClock().now())

    def leaves(self) -> list[bytes]:
        """The hashed leaves, from the rows of the log and by nothing of the sealer's."""
        with self.pool.connection() as connection:
            return [leaf_hash(leaf_bytes(leaf)) for leaf in whole_log(connection)]


def whole_log(connection: Connection[DictRow]) -> list[Leaf]:
    """Everything that is sealed, in order; checked to be the log, once and without gaps."""
    rows = connection.execute(WHOLE_LOG).fetchall()
    assert [row["place"] for row in rows] == list(range(len(rows)))
    by_shard: dict[int, list[int]] = {}
    for row in rows:
        by_shard.setdefault(row["shard"], []).append(row["position"])
    for positions in by_shard.values():
        assert positions == list(range(1, len(positions) + 1))
    return [
        Leaf(
            position=row["place"],
            event_id=row["event_id"],
            aggregate=row["originator_id"],
            version=row["originator_version"],
            topic=row["topic"],
            at=row["recorded_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            state=bytes(row["state"]),
            cause=row["cause"],
        )
        for row in rows
    ]


# --- witnesses ----------------------------------------------------------------------------------


def a_witness(name: str = "witness.example/w") -> tuple[VerifierKey, SigningKey]:
    """What a witness publishes, and what it signs with."""
    (key,) = signing_keys(new_signing_key(name))
    return VerifierKey(name=name, kind=COSIGNATURE, public=key.verifier.public), key


def cosigned(note: str, witness: VerifierKey, key: SigningKey, timestamp: int) -> str:
    """The note with a line of the witness's, as the specification writes it."""
    text = note.rpartition("\n\n")[0] + "\n"
    signature = key.sign(f"cosignature/v1\ntime {timestamp}\n{text}".encode())
    content = witness.key_id + timestamp.to_bytes(8, "big") + signature
    return f"{note}\N{EM DASH} {witness.name} {base64.b64encode(content).decode()}\n"


def signature_lines(whole: str) -> list[str]:
    return whole.rpartition("\n\n")[2].splitlines()


def row_of(connection: Connection[Any], statement: LiteralString, **parameters: Any) -> Any:
    """The one row, or None."""
    return connection.execute(statement, parameters).fetchone()
