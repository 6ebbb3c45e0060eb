"""How a delivery is signed, so that its receiver knows from whom and of when it is.

Two schemes, with one secret. Ours, which is Stripe's: HMAC-SHA256 of `{t}.{body}`, keyed with the whole
secret as text. And that of the Standard Webhooks: HMAC-SHA256 of `{id}.{t}.{body}`, keyed with the bytes
that the secret is the base 64 of, after `whsec_`.
"""

import base64
import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import Final

PREFIX: Final = "whsec_"
# A multiple of three, so that nothing is padded in base 64.
SECRET_BYTES: Final = 30
# One signature, under the three names by which published receivers look for it.
SIGNATURE_HEADERS: Final = ("Payments-Signature", "X-Signature", "Stripe-Signature")


def new_secret() -> str:
    """A fresh secret, `whsec_…`."""
    return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def headers(
    body: bytes, *, event_id: str, unix_seconds: int, secrets_of: Sequence[str]
) -> Mapping[str, str]:
    """What `body` is signed with, by each of the endpoint's secrets, the newest first."""
    stamp = str(unix_seconds)
    ours = [_hex(secret, f"{stamp}.".encode() + body) for secret in secrets_of]
    signature = ",".join([f"t={stamp}", *(f"v1={each}" for each in ours)])
    signed = f"{event_id}.{stamp}.".encode() + body
    return {
        **dict.fromkeys(SIGNATURE_HEADERS, signature),
        "webhook-id": event_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(f"v1,{_base64(each, signed)}" for each in secrets_of),
    }


def _hex(secret: str, signed: bytes) -> str:
    return hmac.digest(secret.encode(), signed, "sha256").hex()


def _base64(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(PREFIX))
    return base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
