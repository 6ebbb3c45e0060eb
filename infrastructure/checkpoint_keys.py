"""Keys that sign checkpoints of the log: Ed25519, written as the C2SP signed-note tools write them."""

import base64
import hashlib
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME: Final = "counterfoil"
ED25519: Final = b"\x01"


def new_signing_key(name: str = NAME) -> str:
    """A fresh private key, as `CHECKPOINT_KEY` takes it: `PRIVATE+KEY+name+id+key`."""
    private = Ed25519PrivateKey.generate()
    public = private.public_key().public_bytes_raw()
    key_id = hashlib.sha256(name.encode() + b"\n" + ED25519 + public).digest()[:4]
    secret = base64.b64encode(ED25519 + private.private_bytes_raw()).decode()
    return f"PRIVATE+KEY+{name}+{key_id.hex()}+{secret}"
