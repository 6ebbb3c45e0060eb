"""Every published way to check a signature finds ours good, and what was changed not."""

import hashlib
import hmac
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping

import pytest
import standardwebhooks
import stripe

import payments
from infrastructure.webhooks.javascript import stringify
from infrastructure.webhooks.signatures import SIGNATURE_HEADERS, headers, new_secret

EVENT_ID = "evt_00000000000000000000000001"
BODY = stringify(
    {
        "id": EVENT_ID,
        "object": "event",
        "type": "payment.succeeded",
        "data": {"object": {"metadata": {"b": "é\u2028", "10": 0.5, "9": 1e-7, "n": 3.0}}},
    }
).encode()
# Written after a published receiver: it checks over a body that it parsed and wrote again, and looks
# for one signature, at one place.
NODE_RECEIVER = """
    const { createHmac } = require('crypto')
    const { header, secret, body } = JSON.parse(require('fs').readFileSync(0, 'utf8'))
    const parsed = JSON.parse(body)
    const parts = header.split(',')
    const timestamp = parts[0].split('=')[1], signature = parts[1].split('=')[1]
    const payload = `${timestamp}.${JSON.stringify(parsed)}`
    const computed = createHmac('sha256', secret).update(payload).digest('hex')
    const isFresh = Math.abs(Date.now() / 1000 - parseInt(timestamp)) <= 300
    process.exit(computed === signature && isFresh ? 0 : 1)
"""


Verifies = Callable[[str, str, str], bool]


def signed(*secrets: str, at: float | None = None, body: bytes = BODY) -> Mapping[str, str]:
    now = int(time.time() if at is None else at)
    return headers(body, event_id=EVENT_ID, unix_seconds=now, secrets_of=secrets)


def python_receiver(payload: str, signature: str, secret: str) -> bool:
    """Written after a published receiver: any of the signatures may match, of the last five minutes."""
    timestamp, found = None, []
    for element in signature.split(","):
        key, value = element.split("=", 1)
        if key == "t":
            timestamp = int(value)
        elif key.startswith("v"):
            found.append(value)
    if not timestamp or abs(int(time.time()) - timestamp) > 300:
        return False
    keyed = hmac.new(secret.encode(), f"{timestamp}.{payload}".encode(), hashlib.sha256)
    return any(hmac.compare_digest(keyed.hexdigest(), each) for each in found)


def node_receiver(payload: str, signature: str, secret: str) -> bool:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    asked = json.dumps({"header": signature, "secret": secret, "body": payload})
    return subprocess.run([node, "-e", NODE_RECEIVER], input=asked, text=True).returncode == 0  # noqa: PLW1510


def stripes_receiver(payload: str, signature: str, secret: str) -> bool:
    try:
        event = stripe.Webhook.construct_event(payload.encode(), signature, secret)
    except stripe.SignatureVerificationError:
        return False
    return bool(event.id == EVENT_ID)


def receiver_of_our_sdk(payload: str, signature: str, secret: str) -> bool:
    try:
        return payments.Webhook.construct_event(payload, signature, secret).id == EVENT_ID
    except payments.SignatureVerificationError:
        return False


@pytest.mark.parametrize(
    "verifies", [python_receiver, node_receiver, stripes_receiver, receiver_of_our_sdk]
)
@pytest.mark.parametrize("header", SIGNATURE_HEADERS)
def test_each_receiver_finds_the_signature_good_and_anything_else_not(
    verifies: Verifies, header: str
) -> None:
    secret, old = new_secret(), new_secret()
    good = signed(secret, old)[header]

    assert verifies(BODY.decode(), good, secret)
    assert not verifies(BODY.decode().replace("succeeded", "failed"), good, secret)
    assert not verifies(BODY.decode(), good, new_secret())
    assert not verifies(BODY.decode(), signed(secret, at=time.time() - 600)[header], secret)


@pytest.mark.parametrize("verifies", [python_receiver, stripes_receiver, receiver_of_our_sdk])
def test_a_rotated_secret_is_found_good_beside_the_new_one(
    verifies: Verifies,
) -> None:
    new, old = new_secret(), new_secret()

    assert verifies(BODY.decode(), signed(new, old)["Stripe-Signature"], old)


def test_the_newest_signature_comes_first() -> None:
    new, old = new_secret(), new_secret()

    both, one = signed(new, old, at=7)["X-Signature"], signed(new, at=7)["X-Signature"]

    assert both.startswith(f"{one},v1=")
    assert one.startswith("t=7,v1=")


def test_standard_webhooks_find_it_good_with_either_secret_and_anything_else_not() -> None:
    new, old = new_secret(), new_secret()
    sent = dict(signed(new, old))

    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(BODY, sent)["id"] == EVENT_ID
    for wrong in ({**sent, "webhook-id": "evt_2"}, {**sent, "webhook-timestamp": "7"}):
        with pytest.raises(standardwebhooks.WebhookVerificationError):
            standardwebhooks.Webhook(new).verify(BODY, wrong)
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(new_secret()).verify(BODY, sent)
