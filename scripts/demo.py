"""A first payment going through, as a merchant's program would make it: over HTTP only."""

import http.client
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

REQUEST_TIMEOUT_SECONDS = 15.0
PATIENCE_SECONDS = 90.0  # how long an outcome may stay unknown
POLL_SECONDS = 0.3
CARD = {"number": "4111111111111111", "exp_month": 12, "exp_year": 2030, "cvc": "123"}

Say = Callable[[str], None]


class DemoFailed(Exception):
    """A step was answered otherwise than expected; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The running API, reached directly: a proxy of the machine's is none of its business."""

    host: str
    port: int
    key: str

    def get(self, path: str) -> Answer:
        return self._send("GET", path, None, {})

    def post(self, path: str, body: dict[str, Any]) -> Answer:
        """With a fresh idempotency key, so that it may be sent again until it is answered."""
        headers = {"Idempotency-Key": str(uuid.uuid4()), "Content-Type": "application/json"}
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                answer = self._send("POST", path, json.dumps(body), headers)
            except (OSError, http.client.HTTPException) as error:
                answer = Answer(status=503, body={"error": {"message": str(error)}})
            is_over = answer.status != http.client.SERVICE_UNAVAILABLE
            if is_over or time.monotonic() > deadline:
                return answer
            time.sleep(POLL_SECONDS)

    def is_healthy(self) -> bool:
        try:
            return self.get("/v1/health").status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False

    def _send(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Answer:
        connection = http.client.HTTPConnection(
            self.host, self.port, timeout=REQUEST_TIMEOUT_SECONDS
        )
        try:
            authorization = {"Authorization": f"Bearer {self.key}"}
            connection.request(method, path, body, headers | authorization)
            response = connection.getresponse()
            return Answer(status=response.status, body=as_object(response.read()))
        finally:
            connection.close()


def show_a_payment(api: Api, say: Say) -> None:
    """Authorize, capture and refund 50 dollars of a new order, and show the receipt."""
    order = f"ORD-DEMO-{uuid.uuid4().hex[:8].upper()}"
    say(f"A first payment, order {order}:")
    wanted = {"order_id": order, "customer_id": "cus_demo", "amount": 5000, "currency": "USD"}
    receipt = step(api, say, "/v1/authorizations", {**wanted, "card": CARD}, "authorized")
    payment = {"payment_id": receipt["payment_id"]}
    step(api, say, "/v1/captures", payment, "captured")
    receipt = step(api, say, "/v1/refunds", payment, "refunded")
    say(json.dumps(receipt, indent=2))


def step(
    api: Api, say: Say, path: str, body: dict[str, Any], expected_status: str
) -> dict[str, Any]:
    """Send one command, and wait for the receipt to show its effect."""
    answer = api.post(path, body)
    payment_id = body.get("payment_id") or answer.body.get("payment_id")
    if answer.status not in (http.client.CREATED, http.client.ACCEPTED) or not payment_id:
        raise DemoFailed(f"POST {path} answered {answer.status}: {json.dumps(answer.body)}")
    receipt = settled_receipt(api, str(payment_id))
    say(f"  POST {path:<19} {answer.status}  {payment_id}  {receipt.get('status')}")
    if receipt.get("status") != expected_status:
        raise DemoFailed(f"the receipt says {receipt.get('status')!r}, not {expected_status!r}")
    return receipt


def settled_receipt(api: Api, payment_id: str) -> dict[str, Any]:
    """The receipt, once the bank's answer to the last command is known."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        receipt = api.get(f"/v1/receipts/{payment_id}")
        is_settled = receipt.status == http.client.OK and not receipt.body.get("pending_operation")
        if is_settled:
            return receipt.body
        if time.monotonic() > deadline:
            raise DemoFailed(f"the outcome of {payment_id} is still unknown: {receipt.body}")
        time.sleep(POLL_SECONDS)


def as_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    return content if isinstance(content, dict) else {"body": body.decode(errors="replace")[:500]}
