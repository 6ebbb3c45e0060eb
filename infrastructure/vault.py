"""The vault: encrypts cards and accounts, for as long as the bank may have to be told of them.

Fernet is authenticated encryption (AES-128-CBC and HMAC-SHA256). The first key encrypts, all keys
decrypt, so that keys can be changed while cards wait.
"""

import hashlib
import hmac
import json
from dataclasses import asdict
from pathlib import Path
from typing import Final
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from domain.accounts import BankAccount, Means
from domain.cards import Card

FINGERPRINT_PURPOSE: Final = b"counterfoil idempotency fingerprint"
KEY_FILE: Final = "vault.keys"


class VaultKeyUnusable(Exception):
    """A vault key is not one, or none of them opens what was sealed."""


def new_key() -> str:
    """A fresh key, as `VAULT_KEYS` takes it."""
    return Fernet.generate_key().decode()


def keys_kept_in(folder: Path) -> tuple[str, ...]:
    """The keys of a demo: made once, and kept in the data folder, readable by its owner only."""
    return kept_once(folder / KEY_FILE, new_key())


def kept_once(file: Path, secret: str) -> tuple[str, ...]:
    """The words of a file that its owner alone can read: `secret`, unless somebody was there before."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(f"{file.name}.{new_key()[:8]}")
        partial.touch(mode=0o600)
        partial.write_text(secret + "\n")
        try:
            file.hardlink_to(partial)  # whoever is first wins; the others read what it made
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return tuple(file.read_text().split())


class FernetVault:
    """The port `Vault`. `keys`: the first encrypts, all decrypt. Raises VaultKeyUnusable."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        try:
            self._fernet = MultiFernet([Fernet(key) for key in keys])
        except ValueError as error:
            raise VaultKeyUnusable(
                "VAULT_KEYS must be keys made by `counterfoil keygen vault`"
            ) from error

    def seal(self, means: Means, payment_id: UUID) -> bytes:
        """The card or the account, encrypted, together with the payment that it is for."""
        content = {"payment_id": str(payment_id), **asdict(means)}
        return self._fernet.encrypt(json.dumps(content).encode())

    def unseal(self, sealed: bytes, payment_id: UUID) -> Means:
        """The same again. Raises VaultKeyUnusable when it cannot be read, or is another payment's."""
        try:
            content = json.loads(self._fernet.decrypt(sealed))
        except InvalidToken as error:
            raise VaultKeyUnusable("a sealed card opens with none of VAULT_KEYS") from error
        if content.pop("payment_id") != str(payment_id):
            raise VaultKeyUnusable("a sealed card belongs to another payment")
        return BankAccount(**content) if "sort_code" in content else Card(**content)

    def seal_text(self, text: str, owner: UUID) -> bytes:
        """A text, encrypted, together with whose it is."""
        return self._fernet.encrypt(f"{owner}:{text}".encode())

    def unseal_text(self, sealed: bytes, owner: UUID) -> str:
        """The text again. Raises VaultKeyUnusable when it cannot be read, or is another's."""
        named, _, text = self.unseal_secret(sealed).decode().partition(":")
        if named != str(owner):
            raise VaultKeyUnusable("a sealed text belongs to something else")
        return text

    def seal_secret(self, secret: bytes) -> bytes:
        """A secret of the store's own, encrypted."""
        return self._fernet.encrypt(secret)

    def unseal_secret(self, sealed: bytes) -> bytes:
        """The secret again. Raises VaultKeyUnusable."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken as error:
            raise VaultKeyUnusable("what was sealed opens with none of VAULT_KEYS") from error


class Fingerprints:
    """Keyed hashes of requests: equal for equal requests, and nothing to whoever lacks the key.

    Each carries a short id of its key, so that keys can be changed while idempotency keys are kept.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        derived = [hmac.digest(key.encode(), FINGERPRINT_PURPOSE, "sha256") for key in keys]
        self._keys = {hashlib.sha256(key).digest()[:4]: key for key in derived}
        self._current = next(iter(self._keys))

    def of(self, text: bytes) -> bytes:
        """The fingerprint of `text` under the current key: 4 bytes of key id, 32 of HMAC-SHA256."""
        return self._under(self._current, text)

    def matches(self, fingerprint: bytes, text: bytes) -> bool:
        """Whether `fingerprint` is of `text`, under whichever key it was made."""
        key_id = fingerprint[:4]
        return key_id in self._keys and hmac.compare_digest(fingerprint, self._under(key_id, text))

    def _under(self, key_id: bytes, text: bytes) -> bytes:
        return key_id + hmac.digest(self._keys[key_id], text, "sha256")
