"""The table of endpoints: where merchants are told of events, and with which secrets that is signed.

A URL may carry a token of the merchant's, so that endpoints are not in the log, which is for ever.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from domain.commands import Metadata, Mode, Tenant
from domain.errors import TooManyWebhookEndpoints, WebhookEndpointNotFound
from domain.ports import Ids
from domain.records import ClaimKey
from infrastructure.claims import at_once, claim
from infrastructure.database import Pool
from infrastructure.vault import FernetVault
from infrastructure.webhooks.signatures import new_secret
from projections.pages import BY_CREATION, Page, PageOf, select_page

MOST_ENDPOINTS: Final = 100
# Of a rotated secret's predecessors: more are forgotten before their time.
MOST_OLD_SECRETS: Final = 4
BY_MERCHANT: Final = "requested"
UNREACHABLE: Final = "unreachable"

COLUMNS: Final[LiteralString] = """
    SELECT id, merchant_id, mode, url, enabled_events, api_version, description, metadata, is_enabled,
           disabled_reason, created_at, updated_at
    FROM webhook_endpoints
"""
LOCK_TENANT: Final[LiteralString] = """
    SELECT pg_advisory_xact_lock(
        hashtext('counterfoil webhook endpoints'), hashtext(%(merchant_id)s || ' ' || %(mode)s)
    )
"""
# How far the log goes: the endpoint is told of what comes after.
INSERT: Final[LiteralString] = """
    INSERT INTO webhook_endpoints (
        id, merchant_id, mode, url, enabled_events, api_version, description, metadata, is_enabled,
        enabled_at, created_at, updated_at
    )
    SELECT %(id)s, %(merchant_id)s, %(mode)s, %(url)s, %(enabled_events)s, %(api_version)s,
           %(description)s, %(metadata)s, true,
           (SELECT array_agg(position ORDER BY shard) FROM shard_heads), %(at)s, %(at)s
    WHERE (
        SELECT count(*) FROM webhook_endpoints
        WHERE merchant_id = %(merchant_id)s AND mode = %(mode)s
    ) < %(most)s
"""
UPDATE: Final[LiteralString] = """
    UPDATE webhook_endpoints SET
        url = %(url)s, enabled_events = %(enabled_events)s, description = %(description)s,
        metadata = %(metadata)s, updated_at = %(at)s, is_enabled = %(is_enabled)s,
        disabled_reason = %(disabled_reason)s,
        disabled_at = CASE WHEN %(is_enabled)s THEN NULL ELSE coalesce(disabled_at, %(at)s) END,
        failing_since = CASE WHEN is_enabled AND url = %(url)s THEN failing_since END,
        enabled_at = CASE
            WHEN %(is_enabled)s AND NOT is_enabled
            THEN (SELECT array_agg(position ORDER BY shard) FROM shard_heads) ELSE enabled_at
        END
    WHERE id = %(id)s
"""
DELETE: Final[LiteralString] = "DELETE FROM webhook_endpoints WHERE id = %(id)s"
KEEP_NEWEST: Final[LiteralString] = """
    INSERT INTO webhook_secrets (id, endpoint_id, sealed)
    VALUES (%(secret_id)s, %(id)s, %(sealed)s)
"""
RETIRE: Final[LiteralString] = """
    UPDATE webhook_secrets
    SET expires_at = clock_timestamp() + make_interval(secs => %(expires_in)s)
    WHERE endpoint_id = %(id)s AND expires_at IS NULL
"""
FORGET: Final[LiteralString] = """
    DELETE FROM webhook_secrets
    WHERE endpoint_id = %(id)s AND (expires_at <= clock_timestamp() OR id IN (
        SELECT id FROM webhook_secrets WHERE endpoint_id = %(id)s ORDER BY id DESC OFFSET %(kept)s
    ))
"""
SECRETS_OF: Final[LiteralString] = """
    SELECT endpoint_id, sealed FROM webhook_secrets
    WHERE endpoint_id = ANY(%(ids)s) AND (expires_at IS NULL OR expires_at > clock_timestamp())
    ORDER BY endpoint_id, id DESC
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a merchant is told of events, and of which. `disabled_reason`: None while it is enabled;
    by whom it is not, otherwise: the merchant, or the worker for want of answers."""

    id: UUID
    tenant: Tenant
    url: str
    enabled_events: Sequence[str]
    api_version: str | None
    description: str | None
    metadata: Metadata
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_enabled(self) -> bool:
        """Whether it is told of anything."""
        return self.disabled_reason is None


# The idempotency key of the request and what it is answered, of the endpoint as it is then.
Claiming = Callable[[Endpoint], Sequence[ClaimKey]]


class WebhookEndpoints:
    """Creates, changes and finds them. Every change is made with its idempotency key, or not at all.
    Raises KeyAlreadyClaimed, StoreUnavailable."""

    PAGE = PageOf(
        select=COLUMNS,
        id_column="id",
        filters={
            "id": "id = %(id)s",
            **BY_CREATION,
        },
    )

    def __init__(self, pool: Pool, vault: FernetVault, ids: Ids) -> None:
        self._pool, self._vault, self._ids = pool, vault, ids

    def create(
        self, endpoint: Endpoint, secret: str, claiming: Claiming, *, most: int = MOST_ENDPOINTS
    ) -> None:
        """There is one more, of `most` of the merchant's in this mode. Raises
        TooManyWebhookEndpoints."""
        parameters = {**_row(endpoint), "most": most}
        with at_once(self._pool) as connection:
            claim(connection, claiming(endpoint))
            connection.execute(LOCK_TENANT, parameters)
            if connection.execute(INSERT, parameters).rowcount == 0:
                raise TooManyWebhookEndpoints(f"There may be {most} webhook endpoints at most.")
            self._add_secret(connection, endpoint.id, secret)

    def change(
        self,
        tenant: Tenant,
        endpoint_id: UUID,
        decide: Callable[[Endpoint], Endpoint],
        claiming: Claiming,
    ) -> Endpoint:
        """It is what `decide` makes of it. Raises WebhookEndpointNotFound."""
        with at_once(self._pool) as connection:
            changed = decide(_held(connection, tenant, endpoint_id))
            claim(connection, claiming(changed))
            connection.execute(UPDATE, _row(changed))
            return changed

    def delete(self, tenant: Tenant, endpoint_id: UUID, claiming: Claiming) -> None:
        """Nothing is sent there any more, what was to be sent neither. Raises
        WebhookEndpointNotFound."""
        with at_once(self._pool) as connection:
            claim(connection, claiming(_held(connection, tenant, endpoint_id)))
            connection.execute(DELETE, {"id": endpoint_id})

    def rotate(
        self,
        tenant: Tenant,
        endpoint_id: UUID,
        expires_in: int,
        claiming: Callable[[Endpoint, str], Sequence[ClaimKey]],
    ) -> tuple[Endpoint, str]:
        """The endpoint, and a new secret of it; the old one signs as well, for `expires_in` seconds.
        Raises WebhookEndpointNotFound."""
        secret = new_secret()
        parameters = {"id": endpoint_id, "expires_in": expires_in, "kept": MOST_OLD_SECRETS}
        with at_once(self._pool) as connection:
            endpoint = _held(connection, tenant, endpoint_id)
            claim(connection, claiming(endpoint, secret))
            connection.execute(RETIRE, parameters)
            connection.execute(FORGET, parameters)
            self._add_secret(connection, endpoint_id, secret)
        return endpoint, secret

    def get(self, tenant: Tenant, endpoint_id: UUID) -> Endpoint | None:
        """One, or None where this tenant has none of that id."""
        found, _ = self.page(tenant, Page(limit=1, filters={"id": endpoint_id}))
        return found[0] if found else None

    def page(self, tenant: Tenant, page: Page) -> tuple[list[Endpoint], bool]:
        """A page, newest first, and whether there are more in that direction."""
        with self._pool.connection() as connection:
            rows, has_more = select_page(connection, self.PAGE, tenant, page)
        return [_endpoint(row) for row in rows], has_more

    def sealed_secrets(self, ids: Collection[UUID]) -> dict[UUID, list[bytes]]:
        """What each of these endpoints signs with now, the newest first, encrypted."""
        found: dict[UUID, list[bytes]] = {}
        with self._pool.connection() as connection:
            for row in connection.execute(SECRETS_OF, {"ids": list(ids)}).fetchall():
                found.setdefault(row["endpoint_id"], []).append(bytes(row["sealed"]))
        return found

    def unsealed(self, sealed: bytes, endpoint_id: UUID) -> str:
        """The secret. Raises VaultKeyUnusable."""
        return self._vault.unseal_text(sealed, endpoint_id)

    def _add_secret(self, connection: Connection[DictRow], endpoint_id: UUID, secret: str) -> None:
        sealed = self._vault.seal_text(secret, endpoint_id)
        parameters = {"secret_id": self._ids.new(), "id": endpoint_id, "sealed": sealed}
        connection.execute(KEEP_NEWEST, parameters)


def _held(connection: Connection[DictRow], tenant: Tenant, endpoint_id: UUID) -> Endpoint:
    """The endpoint, which nobody else changes until the transaction ends."""
    parameters = {
        "id": endpoint_id,
        "merchant_id": tenant.merchant_id,
        "mode": tenant.mode.value,
    }
    row = connection.execute(
        COLUMNS
        + "WHERE id = %(id)s AND merchant_id = %(merchant_id)s AND mode = %(mode)s FOR UPDATE",
        parameters,
    ).fetchone()
    if row is None:
        raise WebhookEndpointNotFound("There is no such webhook endpoint.")
    return _endpoint(row)


def _endpoint(row: DictRow) -> Endpoint:
    return Endpoint(
        id=row["id"],
        tenant=Tenant(row["merchant_id"], Mode(row["mode"])),
        url=row["url"],
        enabled_events=row["enabled_events"],
        api_version=row["api_version"],
        description=row["description"],
        metadata=row["metadata"],
        disabled_reason=None if row["is_enabled"] else row["disabled_reason"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _row(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "merchant_id": endpoint.tenant.merchant_id,
        "mode": endpoint.tenant.mode.value,
        "url": endpoint.url,
        "enabled_events": list(endpoint.enabled_events),
        "api_version": endpoint.api_version,
        "description": endpoint.description,
        "metadata": Jsonb(dict(endpoint.metadata)),
        "is_enabled": endpoint.is_enabled,
        "disabled_reason": endpoint.disabled_reason,
        "at": endpoint.updated_at,
    }
