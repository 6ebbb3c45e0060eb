"""Webhooks: an event, if it is from us and fresh."""

import hashlib
import hmac
import json
import time
from typing import Final

from payments._errors import SignatureVerificationError
from payments._resources import Event

TOLERANCE_SECONDS: Final = 300


class Webhook:
    """What was posted to a merchant's URL."""

    @staticmethod
    def construct_event(
        payload: bytes | str, header: str, secret: str, tolerance: int = TOLERANCE_SECONDS
    ) -> Event:
        """The event. `payload`: the body as it came; `header`: `Payments-Signature`; `secret`: the
        endpoint's, with its `whsec_`; `tolerance`: how many seconds old it may be, 0 for any. Raises
        SignatureVerificationError, and ValueError for a body that is signed and no event."""
        body = payload.encode() if isinstance(payload, str) else payload
        sent_at, signatures = _parsed(header)
        signed = sent_at.encode() + b"." + body
        expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
        if not any(hmac.compare_digest(expected, each.encode()) for each in signatures):
            raise SignatureVerificationError("No signature is of this body and secret.")
        if tolerance and abs(time.time() - int(sent_at)) > tolerance:
            raise SignatureVerificationError("The signature is too old.")
        return Event(json.loads(body))


def _parsed(header: str) -> tuple[str, list[str]]:
    """When it was signed, and the signatures, of which a rotated secret has a second one."""
    pairs = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    signatures = [value for name, _, value in pairs if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal()) or not signatures:
        raise SignatureVerificationError("The header is no signature.")
    return times[0], signatures
