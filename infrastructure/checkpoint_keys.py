"""Keys that sign checkpoints of the log: Ed25519, written as the C2SP signed-note tools write them.

A private key is `PRIVATE+KEY+name+id+key`, a public one `name+id+key` (a vkey), where `id` is the first
four bytes of a hash of the name and the key, and `key` is in base64, after a byte that says its kind.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infrastructure.vault import kept_once

NAME: Final = "counterfoil"
ED25519: Final = b"\x01"
COSIGNATURE: Final = b"\x04"
SEED_BYTES: Final = 32
PUBLIC_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
KEY_FILE: Final = "checkpoint.key"
NAME_PATTERN: Final = re.compile(r"[^\s+]{1,200}")
PRIVATE: Final = re.compile(r"PRIVATE\+KEY\+([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")
PUBLIC: Final = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)")


class SigningKeyUnusable(Exception):
    """The text is not a signing key."""


class VerifierKeyUnusable(Exception):
    """The text is not a public key of a signer of notes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierKey:
    """A public key. `kind`: of signature; a log's own, or a witness's."""

    name: str
    kind: bytes
    public: bytes

    @property
    def key_id(self) -> bytes:
        """What a signature line begins with."""
        content = self.name.encode() + b"\n" + self.kind + self.public
        return hashlib.sha256(content).digest()[:KEY_ID_BYTES]

    @property
    def text(self) -> str:
        """As a vkey."""
        key = base64.b64encode(self.kind + self.public).decode()
        return f"{self.name}+{self.key_id.hex()}+{key}"

    @property
    def pem(self) -> str:
        """The bare key, for tools that know nothing of notes."""
        key = Ed25519PublicKey.from_public_bytes(self.public)
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_bytes(serialization.Encoding.PEM, form).decode()

    def has_signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this is its signature of these bytes."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, message)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A private key."""

    verifier: VerifierKey
    private: Ed25519PrivateKey

    def sign(self, message: bytes) -> bytes:
        """The signature of these bytes."""
        return self.private.sign(message)


def signing_keys(text: str) -> tuple[SigningKey, ...]:
    """The keys of `CHECKPOINT_KEY`, which has several, by commas, while one takes another's place. Raises
    SigningKeyUnusable."""
    keys = tuple(_signing_key(part.strip()) for part in text.split(",") if part.strip())
    if not keys:
        raise SigningKeyUnusable("CHECKPOINT_KEY has no key in it")
    return keys


def check_signing_key(text: str) -> None:
    """Raises SigningKeyUnusable for what `new_signing_key` would not have made."""
    signing_keys(text)


def _signing_key(text: str) -> SigningKey:
    match = PRIVATE.fullmatch(text)
    secret = b"" if match is None else _decoded(match[3])
    if match is None or secret[:1] != ED25519 or len(secret) != 1 + SEED_BYTES:
        raise SigningKeyUnusable(
            "CHECKPOINT_KEY must be a key made by `counterfoil keygen checkpoint`"
        )
    private = Ed25519PrivateKey.from_private_bytes(secret[1:])
    public = private.public_key().public_bytes_raw()
    verifier = VerifierKey(name=match[1], kind=ED25519, public=public)
    if verifier.key_id.hex() != match[2]:
        raise SigningKeyUnusable("CHECKPOINT_KEY is damaged: its id is another key's")
    return SigningKey(verifier=verifier, private=private)


def new_signing_key(name: str = NAME) -> str:
    """A fresh private key, as `CHECKPOINT_KEY` takes it."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    verifier = VerifierKey(name=name, kind=ED25519, public=public)
    secret = base64.b64encode(ED25519 + private.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{verifier.key_id.hex()}+{secret}"


def verifier_key(text: str) -> VerifierKey:
    """A vkey. Raises VerifierKeyUnusable."""
    match = PUBLIC.fullmatch(text)
    content = b"" if match is None else _decoded(match[3])
    if (
        match is None
        or len(content) != 1 + PUBLIC_BYTES
        or content[:1] not in (ED25519, COSIGNATURE)
    ):
        raise VerifierKeyUnusable("a public key is written name+id+key, as its owner publishes it")
    key = VerifierKey(name=match[1], kind=content[:1], public=content[1:])
    if key.key_id.hex() != match[2]:
        raise VerifierKeyUnusable("a public key is damaged: its id is another key's")
    return key


def witness_keys(texts: Iterable[str]) -> tuple[VerifierKey, ...]:
    """The vkeys of CHECKPOINT_WITNESSES. Raises VerifierKeyUnusable."""
    try:
        keys = tuple(verifier_key(text) for text in texts)
    except VerifierKeyUnusable as error:
        raise VerifierKeyUnusable(f"CHECKPOINT_WITNESSES: {error}") from error
    if any(key.kind != COSIGNATURE for key in keys):
        raise VerifierKeyUnusable("CHECKPOINT_WITNESSES: a key is not one for cosignatures")
    return keys


def key_kept_in(folder: Path) -> str:
    """The keys of a demo, as `CHECKPOINT_KEY` has them: one is made once, and kept in the data folder,
    readable by its owner only."""
    return ",".join(kept_once(folder / KEY_FILE, new_signing_key()))


def put_new_key_first(folder: Path) -> None:
    """A new key signs from now on, and those that are kept there still do."""
    _keep(folder, [new_signing_key(), *key_kept_in(folder).split(",")])


def drop_old_keys(folder: Path) -> None:
    """The first alone signs from now on."""
    _keep(folder, key_kept_in(folder).split(",")[:1])


def _keep(folder: Path, keys: Iterable[str]) -> None:
    """In the place of what was there, at once."""
    partial = folder / f"{KEY_FILE}.new"
    partial.unlink(missing_ok=True)
    partial.touch(mode=0o600)
    partial.write_text("\n".join(keys) + "\n")
    partial.replace(folder / KEY_FILE)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""
