"""API keys: who asks, for which merchant, in which mode, and what they may.

A key is shown once and stored as a SHA-256 digest: it has 190 bits of its own, so no slower hash is
called for. It is looked up by the digest, which nobody can steer, and compared in constant time.
"""

import hashlib
import hmac
import secrets
import string
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, LiteralString

from cachetools import TTLCache
from psycopg import Connection, errors

from domain.commands import Mode, Tenant
from domain.ids import Prefix, encode
from domain.ports import Clock, Ids
from infrastructure.database import Pool

SECRET_LENGTH: Final = 32
SHOWN_LENGTH: Final = 12
EVERY_MERCHANT: Final = "*"
DEMO_MERCHANT: Final = "demo"
# A revocation is felt within this on every process.
REMEMBERED_SECONDS: Final = 0.5
REMEMBERED_KEYS: Final = 10_000
# When a key was last used is known to this, and written down no more often.
LAST_USED: Final = timedelta(minutes=1)


class Scope(StrEnum):
    """What a key may do."""

    PAYMENTS_READ = "payments:read"
    PAYMENTS_WRITE = "payments:write"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_WRITE = "customers:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    AUDIT_READ = "audit:read"


DEFAULT_SCOPES: Final = tuple(scope for scope in Scope if scope is not Scope.AUDIT_READ)


class KeyType(StrEnum):
    """A secret key acts; a publishable one is made to be seen in a browser."""

    SECRET = "secret"  # noqa: S105 - a kind, not a secret
    PUBLISHABLE = "publishable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is known of a key, which is not the key itself. `merchant` is a name."""

    key_id: str
    prefix: str
    merchant_id: str
    merchant: str
    mode: Mode
    type: KeyType
    scopes: frozenset[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    is_suspended: bool

    @property
    def tenant(self) -> Tenant:
        """Whose data it opens."""
        return Tenant(self.merchant_id, self.mode)

    def is_good(self, at: datetime) -> bool:
        """Neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)


class MerchantUnknown(Exception):
    """There is no merchant of that name."""


class KeyUnknown(Exception):
    """There is no key of that id."""


class ApiKeys:
    """The tables of merchants and keys."""

    FIND: LiteralString = """
        SELECT k.key_id, k.digest, k.prefix, k.merchant_id, m.name AS merchant, k.mode, k.type, k.scopes,
               k.created_at, k.expires_at, k.revoked_at, k.last_used_at,
               m.suspended_at IS NOT NULL AS is_suspended
        FROM api_keys k JOIN merchants m USING (merchant_id)
        WHERE %(digest)s::bytea IS NULL OR k.digest = %(digest)s
        ORDER BY k.created_at, k.key_id
    """
    USED: LiteralString = """
        UPDATE api_keys SET last_used_at = %(at)s WHERE digest = %(digest)s
          AND (last_used_at IS NULL OR last_used_at <= %(before)s)
    """
    ADD_MERCHANT: LiteralString = """
        INSERT INTO merchants (merchant_id, name, created_at)
        VALUES (%(merchant_id)s, %(name)s, %(at)s) ON CONFLICT (name) DO NOTHING
    """
    MERCHANT_ID: LiteralString = "SELECT merchant_id FROM merchants WHERE name = %(name)s"
    ADD: LiteralString = """
        INSERT INTO api_keys (
            key_id, digest, prefix, merchant_id, mode, type, scopes, created_at, expires_at
        ) VALUES (
            %(key_id)s, %(digest)s, %(prefix)s, %(merchant_id)s, %(mode)s, %(type)s, %(scopes)s,
            %(at)s, %(expires_at)s
        )
    """
    REVOKE: LiteralString = """
        UPDATE api_keys SET revoked_at = coalesce(revoked_at, %(at)s) WHERE key_id = %(key_id)s
    """
    TO_ROTATE: LiteralString = """
        SELECT k.merchant_id, m.name AS merchant, k.mode, k.type, k.scopes, k.created_at,
               k.expires_at
        FROM api_keys k JOIN merchants m USING (merchant_id)
        WHERE k.key_id = %(key_id)s AND k.revoked_at IS NULL
          AND (k.expires_at IS NULL OR k.expires_at > %(at)s)
        FOR UPDATE OF k
    """
    EXPIRE: LiteralString = """
        UPDATE api_keys SET expires_at = least(coalesce(expires_at, 'infinity'), %(expires_at)s)
        WHERE key_id = %(key_id)s
    """
    MERCHANTS: LiteralString = """
        SELECT merchant_id, name, created_at, suspended_at FROM merchants ORDER BY created_at, name
    """
    SUSPEND: LiteralString = """
        UPDATE merchants SET suspended_at = coalesce(suspended_at, %(at)s) WHERE name = %(name)s
    """
    NAME: LiteralString = "SELECT name FROM merchants WHERE merchant_id = %(merchant_id)s"
    RESUME: LiteralString = "UPDATE merchants SET suspended_at = NULL WHERE name = %(name)s"

    def __init__(self, pool: Pool, clock: Clock, ids: Ids) -> None:
        self._pool, self._clock, self._ids = pool, clock, ids
        self._remembered: TTLCache[bytes, ApiKey | None] = TTLCache(
            REMEMBERED_KEYS, REMEMBERED_SECONDS, timer=clock.monotonic
        )
        self._lock = threading.Lock()

    def find(self, key: str) -> ApiKey | None:
        """The key's record, at most REMEMBERED_SECONDS old; None for one that is no good."""
        digest = _digest(key)
        # Not first whether, then what: its time may run out between the two.
        with self._lock, suppress(KeyError):
            return self._if_good(self._remembered[digest])
        found = self._fetch(digest)
        with self._lock:
            self._remembered[digest] = found
        return found

    def _if_good(self, found: ApiKey | None) -> ApiKey | None:
        return found if found is not None and found.is_good(self._clock.now()) else None

    def _fetch(self, digest: bytes) -> ApiKey | None:
        at = self._clock.now()
        with self._pool.connection() as connection:
            row = connection.execute(self.FIND, {"digest": digest}).fetchone()
            if row is None or not hmac.compare_digest(bytes(row["digest"]), digest):
                return None
            found = self._if_good(_api_key(row))
            last = row["last_used_at"]
            if found is not None and (last is None or last <= at - LAST_USED):
                parameters = {"digest": digest, "at": at, "before": at - LAST_USED}
                connection.execute(self.USED, parameters)
        return found

    def create(
        self,
        merchant: str,
        *,
        mode: Mode,
        type: KeyType = KeyType.SECRET,  # noqa: A002 - the contract's word
        scopes: Sequence[str] = DEFAULT_SCOPES,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of the merchant, which is made if new, and the only showing of it."""
        key = _new_key(mode, type)
        with self._pool.connection() as connection, connection.transaction():
            self._add(
                connection, key, merchant, mode, key_type=type, scopes=scopes, expires_at=expires_at
            )
        return self._shown(key), key

    def rotate(self, key_id: str, *, overlap: timedelta) -> tuple[ApiKey, str]:
        """A key in the place of this one, which is good for so long yet: of the same merchant, mode, type
        and scopes, and for as long as this one was made for. Raises KeyUnknown, also for one that is good
        no more."""
        at = self._clock.now()
        with self._pool.connection() as connection, connection.transaction():
            old = connection.execute(self.TO_ROTATE, {"key_id": key_id, "at": at}).fetchone()
            if old is None:
                raise KeyUnknown(key_id)
            mode, key_type = Mode(old["mode"]), KeyType(old["type"])
            key = _new_key(mode, key_type)
            expires_at = old["expires_at"] and at + (old["expires_at"] - old["created_at"])
            self._add(
                connection,
                key,
                old["merchant"],
                mode,
                key_type=key_type,
                scopes=old["scopes"],
                expires_at=expires_at,
            )
            connection.execute(self.EXPIRE, {"key_id": key_id, "expires_at": at + overlap})
        return self._shown(key), key

    def _shown(self, key: str) -> ApiKey:
        with self._pool.connection() as connection:
            row = connection.execute(self.FIND, {"digest": _digest(key)}).fetchone()
        assert row is not None
        return _api_key(row)

    def accept(self, key: str, merchant: str) -> None:
        """Lets `key`, any text, be a secret test key of the merchant. For demos."""
        with (
            suppress(errors.UniqueViolation),  # it was accepted before
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            self._add(
                connection,
                key,
                merchant,
                Mode.TEST,
                key_type=KeyType.SECRET,
                scopes=DEFAULT_SCOPES,
            )

    def _add(
        self,
        connection: Connection[Any],
        key: str,
        merchant: str,
        mode: Mode,
        *,
        key_type: KeyType,
        scopes: Sequence[str],
        expires_at: datetime | None = None,
    ) -> None:
        at = self._clock.now()
        merchant_id = encode(Prefix.MERCHANT, self._ids.new())
        connection.execute(
            self.ADD_MERCHANT, {"merchant_id": merchant_id, "name": merchant, "at": at}
        )
        row = connection.execute(self.MERCHANT_ID, {"name": merchant}).fetchone()
        assert row is not None
        parameters = {
            "key_id": encode(Prefix.KEY, self._ids.new()),
            "digest": _digest(key),
            "prefix": key[: min(SHOWN_LENGTH, len(key) // 2)],
            "merchant_id": row["merchant_id"],
            "mode": mode.value,
            "type": key_type.value,
            "scopes": [str(scope) for scope in scopes],
            "at": at,
            "expires_at": expires_at,
        }
        connection.execute(self.ADD, parameters)

    def all(self) -> list[ApiKey]:
        """Every key, oldest first."""
        with self._pool.connection() as connection:
            return [
                _api_key(row) for row in connection.execute(self.FIND, {"digest": None}).fetchall()
            ]

    def revoke(self, key_id: str) -> None:
        """The key is good no more. Raises KeyUnknown."""
        with self._pool.connection() as connection:
            done = connection.execute(self.REVOKE, {"key_id": key_id, "at": self._clock.now()})
            if done.rowcount == 0:
                raise KeyUnknown(key_id)

    def merchants(self) -> list[dict[str, Any]]:
        """Every merchant: `merchant_id`, `name`, `created_at`, `suspended_at`."""
        with self._pool.connection() as connection:
            return connection.execute(self.MERCHANTS).fetchall()

    def merchant_name(self, merchant_id: str) -> str:
        """What a merchant is called. Raises MerchantUnknown."""
        with self._pool.connection() as connection:
            row = connection.execute(self.NAME, {"merchant_id": merchant_id}).fetchone()
        if row is None:
            raise MerchantUnknown(merchant_id)
        return str(row["name"])

    def suspend(self, name: str) -> None:
        """The merchant's keys open nothing until it is resumed. Raises MerchantUnknown."""
        self._change(self.SUSPEND, name)

    def resume(self, name: str) -> None:
        """The merchant's keys are good again. Raises MerchantUnknown."""
        self._change(self.RESUME, name)

    def _change(self, statement: LiteralString, name: str) -> None:
        with self._pool.connection() as connection:
            done = connection.execute(statement, {"name": name, "at": self._clock.now()})
            if done.rowcount == 0:
                raise MerchantUnknown(name)


def _new_key(mode: Mode, key_type: KeyType) -> str:
    letters = string.ascii_letters + string.digits
    own = "".join(secrets.choice(letters) for _ in range(SECRET_LENGTH))
    return f"{'sk' if key_type is KeyType.SECRET else 'pk'}_{mode}_{own}"


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _api_key(row: dict[str, Any]) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        prefix=row["prefix"],
        merchant_id=row["merchant_id"],
        merchant=row["merchant"],
        mode=Mode(row["mode"]),
        type=KeyType(row["type"]),
        scopes=frozenset(row["scopes"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        is_suspended=row["is_suspended"],
    )
