"""Keys that sign checkpoints of the log: Ed25519, written as the C2SP signed-note tools write them."""

import base64
import binascii
import hashlib
import re
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME: Final = "counterfoil"
ED25519: Final = b"\x01"
SEED_BYTES: Final = 32


class SigningKeyUnusable(Exception):
    """The text is not a signing key."""


def check_signing_key(text: str) -> None:
    """Raises SigningKeyUnusable for what `new_signing_key` would not have made."""
    match = re.fullmatch(r"PRIVATE\+KEY\+([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)", text)
    try:
        secret = b"" if match is None else base64.b64decode(match[3], validate=True)
    except binascii.Error:
        secret = b""
    if match is None or secret[:1] != ED25519 or len(secret) != 1 + SEED_BYTES:
        raise SigningKeyUnusable(
            "CHECKPOINT_KEY must be a key made by `counterfoil keygen checkpoint`"
        )
    public = Ed25519PrivateKey.from_private_bytes(secret[1:]).public_key().public_bytes_raw()
    if _key_id(match[1], public) != match[2]:
        raise SigningKeyUnusable("CHECKPOINT_KEY is damaged: its id is another key's")


def new_signing_key(name: str = NAME) -> str:
    """A fresh private key, as `CHECKPOINT_KEY` takes it: `PRIVATE+KEY+name+id+key`."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    secret = base64.b64encode(ED25519 + private.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{_key_id(name, public)}+{secret}"


def _key_id(name: str, public: bytes) -> str:
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4].hex()
