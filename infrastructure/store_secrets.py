"""Secrets of the store's own, made once and kept encrypted: what is marked under one stays marked,
whatever keys of the vault come and go."""

import hmac
import secrets
from typing import Final, LiteralString

from infrastructure.database import Pool
from infrastructure.vault import FernetVault

SECRET_BYTES: Final = 32

KEEP: Final[LiteralString] = """
    INSERT INTO vault_secrets (name, sealed) VALUES (%(name)s, %(sealed)s) ON CONFLICT DO NOTHING
"""
FIND: Final[LiteralString] = "SELECT sealed FROM vault_secrets WHERE name = %(name)s"


class StoreSecrets:
    """Each has a name, and is made when it is first needed."""

    def __init__(self, pool: Pool, vault: FernetVault) -> None:
        self._pool = pool
        self._vault = vault
        self._known: dict[str, bytes] = {}

    def mark(self, name: str, text: str) -> str:
        """A hash of `text` under the secret of that name, in hexadecimal: the same for ever, and not to
        be guessed."""
        return hmac.digest(self._secret(name), text.encode(), "sha256").hex()

    def _secret(self, name: str) -> bytes:
        if name not in self._known:
            with self._pool.connection() as connection:
                row = connection.execute(FIND, {"name": name}).fetchone()
                if row is None:
                    sealed = self._vault.seal_secret(secrets.token_bytes(SECRET_BYTES))
                    connection.execute(KEEP, {"name": name, "sealed": sealed})
                    row = connection.execute(FIND, {"name": name}).fetchone()
            assert row is not None
            self._known[name] = self._vault.unseal_secret(row["sealed"])
        return self._known[name]
