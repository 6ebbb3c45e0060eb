"""Cards of payment methods, and accounts, encrypted: the number until the method is detached, the CVC
until it was used or an hour has passed. Cards of tokens: all of it until then.

A card's fingerprint is a hash of its number under a secret that was made once for the whole store, and
is itself kept encrypted, so that equal cards have equal fingerprints whatever keys come and go.
"""

from typing import Any, Final, LiteralString
from uuid import UUID

from domain.accounts import BankAccount
from domain.cards import Card
from domain.records import ForgetCard, KeepCard, UseToken
from infrastructure.database import Pool
from infrastructure.shards import shard_of
from infrastructure.statements import Part
from infrastructure.store_secrets import StoreSecrets
from infrastructure.vault import FernetVault

CVC_SECONDS: Final = 3600
FINGERPRINT_LENGTH: Final = 16
FINGERPRINTS: Final[LiteralString] = "card fingerprints"

KEEP: Final[LiteralString] = """
    INSERT INTO stored_cards (shard, method_id, sealed_number, sealed_cvc, cvc_until, kept_until)
    VALUES (
        %(shard)s, %(method_id)s, %(sealed_number)s, %(sealed_cvc)s,
        clock_timestamp() + make_interval(secs => %(cvc_seconds)s),
        CASE WHEN %(is_for_once)s
            THEN clock_timestamp() + make_interval(secs => %(cvc_seconds)s) END
    )
    ON CONFLICT (shard, method_id) DO UPDATE SET
        sealed_number = excluded.sealed_number, sealed_cvc = excluded.sealed_cvc,
        cvc_until = excluded.cvc_until, kept_until = excluded.kept_until
"""
FORGET: Final[LiteralString] = """
    DELETE FROM stored_cards WHERE shard = %(shard)s AND method_id = %(method_id)s
"""
FORGET_CVC: Final[LiteralString] = """
    UPDATE stored_cards SET sealed_cvc = NULL, cvc_until = NULL
    WHERE shard = %(shard)s AND method_id = %(method_id)s
"""
FORGET_OLD_CVCS: Final[LiteralString] = """
    WITH old AS (
        SELECT shard, method_id FROM stored_cards
        WHERE sealed_cvc IS NOT NULL AND cvc_until < statement_timestamp()
        ORDER BY cvc_until LIMIT %(most)s FOR UPDATE SKIP LOCKED
    )
    UPDATE stored_cards AS c SET sealed_cvc = NULL, cvc_until = NULL FROM old
    WHERE (c.shard, c.method_id) = (old.shard, old.method_id)
"""
FORGET_OLD_TOKENS: Final[LiteralString] = """
    WITH old AS (
        SELECT shard, method_id FROM stored_cards WHERE kept_until < statement_timestamp()
        ORDER BY kept_until LIMIT %(most)s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM stored_cards AS c USING old
    WHERE (c.shard, c.method_id) = (old.shard, old.method_id)
"""
FORGET_USED_TOKENS: Final[LiteralString] = """
    WITH old AS (
        SELECT shard, token_id FROM used_tokens
        WHERE used_at < statement_timestamp() - make_interval(secs => 2 * %(seconds)s)
        LIMIT %(most)s FOR UPDATE SKIP LOCKED
    )
    DELETE FROM used_tokens AS u USING old
    WHERE (u.shard, u.token_id) = (old.shard, old.token_id)
"""
USE_UP: Final[LiteralString] = """
    INSERT INTO used_tokens (shard, token_id, used_at)
    VALUES (%(shard)s, %(method_id)s, clock_timestamp())
"""
FIND: Final[LiteralString] = """
    SELECT sealed_number,
           CASE WHEN cvc_until >= clock_timestamp() THEN sealed_cvc END AS sealed_cvc
    FROM stored_cards WHERE shard = %(shard)s AND method_id = %(method_id)s
      AND (kept_until IS NULL OR kept_until >= clock_timestamp())
"""


def keep(record: KeepCard) -> Part:
    """In the place of what was there."""
    return Part(
        "card",
        KEEP,
        _identity(record.method_id)
        | {
            "sealed_number": record.sealed_number,
            "sealed_cvc": record.sealed_cvc,
            "cvc_seconds": CVC_SECONDS,
            "is_for_once": record.is_for_once,
        },
    )


def forget(record: ForgetCard) -> Part:
    """The card, or its CVC only."""
    sql = FORGET_CVC if record.cvc_only else FORGET
    return Part("uncarded", sql, _identity(record.method_id))


def use_up(record: UseToken) -> Part:
    """Breaks `used_tokens_pkey` when it was used. Its card goes with a `ForgetCard`."""
    return Part("used_up", USE_UP, _identity(record.token_id))


class StoredCards:
    """The vault's side of payment methods."""

    def __init__(self, pool: Pool, vault: FernetVault, store_secrets: StoreSecrets) -> None:
        self._pool = pool
        self._vault = vault
        self._secrets = store_secrets

    def sealed(self, method_id: UUID, card: Card, *, is_for_once: bool = False) -> KeepCard:
        """The record that keeps the card. `is_for_once`: a token's, for an hour."""
        return KeepCard(
            method_id=method_id,
            sealed_number=self._vault.seal_text(card.number, method_id),
            sealed_cvc=None if card.cvc is None else self._vault.seal_text(card.cvc, method_id),
            is_for_once=is_for_once,
        )

    def sealed_account(self, method_id: UUID, account: BankAccount) -> KeepCard:
        """The record that keeps the account's number."""
        sealed = self._vault.seal_text(account.number, method_id)
        return KeepCard(method_id=method_id, sealed_number=sealed, sealed_cvc=None)

    def find(self, method_id: UUID) -> tuple[str, str | None] | None:
        """The number, of a card or of an account, and the CVC while it is kept. None: it was erased, or
        there is none."""
        with self._pool.connection() as connection:
            row = connection.execute(FIND, _identity(method_id)).fetchone()
        if row is None:
            return None
        cvc = row["sealed_cvc"]
        return (
            self._vault.unseal_text(row["sealed_number"], method_id),
            None if cvc is None else self._vault.unseal_text(cvc, method_id),
        )

    def fingerprint(self, number: str) -> str:
        """The same for the same number, and nothing to whoever lacks the secret."""
        return self._secrets.mark(FINGERPRINTS, number)[:FINGERPRINT_LENGTH]

    def forget_old_cvcs(self, most: int) -> int:
        """Erases CVCs whose hour has passed, the oldest first; how many."""
        with self._pool.connection() as connection:
            return connection.execute(FORGET_OLD_CVCS, {"most": most}).rowcount

    def forget_old_tokens(self, most: int) -> int:
        """Erases cards of tokens that nobody used in time, the oldest first; how many."""
        with self._pool.connection() as connection:
            return connection.execute(FORGET_OLD_TOKENS, {"most": most}).rowcount

    def forget_used_tokens(self, most: int) -> int:
        """Forgets that tokens were used which nobody could use any more; how many."""
        with self._pool.connection() as connection:
            limits = {"seconds": CVC_SECONDS, "most": most}
            return connection.execute(FORGET_USED_TOKENS, limits).rowcount


def _identity(method_id: UUID) -> dict[str, Any]:
    return {"shard": shard_of(method_id), "method_id": method_id}
