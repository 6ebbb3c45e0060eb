"""The load generator, a process of its own: clients that ask, wait for the answer, and ask again.

Light on CPU, since it shares the machine with what it measures: sockets of asyncio, requests made by
hand, and of an answer no more is read than its length, its status and a payment's id.

A Plan comes as JSON on standard input; what was measured goes as JSON to standard output.
"""

import asyncio
import gc
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from scripts.bench import procfs

HOST = "127.0.0.1"
CONNECT_TRIES = 40
SETTLE_SECONDS = 0.02
EVEN_SHARE = 0.9  # of what each worker would have, were it shared equally
PAUSE_AFTER_FAILURE_SECONDS = 0.05
READ_PAUSE_SECONDS = 0.1
DRAIN_SECONDS = 15.0
SAMPLES_KEPT = 5
LONGEST_SAMPLE = 300
CREATED = 201
OK = 200
CARD = b'{"number":"4111111111111111","exp_month":12,"exp_year":2030,"cvc":"123"}'
METHOD = b'{"type":"card","card":%b}' % CARD
INTENT = b'{"amount":5000,"currency":"usd","metadata":{"order_id":"%b"}}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One measurement. `work`: what each client does; `readers`: how many read beside them.

    `trees`: the processes whose CPU time is taken, by their roots; `server` is the one that is asked.
    """

    work: str
    port: int
    workers: int
    api_key: str
    name: str
    clients: int
    readers: int
    warm_up_seconds: float
    seconds: float
    trees: dict[str, int]


@dataclass(slots=True, kw_only=True)
class Measured:
    """What happened while it was measured; `unexpected` counts the warm-up's and the end's too."""

    seconds: float = 0.0
    connections: list[int] = field(default_factory=list)
    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    unexpected: dict[str, int] = field(default_factory=dict)
    samples: list[str] = field(default_factory=list)


class Connection(asyncio.Protocol):
    """One kept-alive connection with at most one request under way; made again after a failure."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("hung up"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = parsed(self._received)
        if answer is not None and self._answer is not None and not self._answer.done():
            self._received = b""
            self._answer.set_result(answer)

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """The answer's status and body. Raises OSError."""
        if self._transport is None:
            await self.open()
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    async def open(self) -> None:
        """Connects. Raises OSError."""
        self._received = b""
        await asyncio.get_running_loop().create_connection(lambda: self, HOST, self._port)

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.close()


def parsed(received: bytes) -> tuple[int, bytes] | None:
    """Status and body of an answer with a Content-Length, or None while it is not whole."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head = received[:head_end].lower()
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        raise ValueError(f"an answer without a Content-Length: {received[:LONGEST_SAMPLE]!r}")
    line_end = head.find(b"\r\n", at + 2)
    length = int(head[at + 17 : line_end if line_end > 0 else head_end])
    if len(received) < head_end + 4 + length:
        return None
    return int(received[9:12]), received[head_end + 4 :]


def request(method: str, path: str, headers: str = "", body: bytes | None = None) -> bytes:
    """An HTTP/1.1 request on a connection that stays open."""
    about = "" if body is None else _about_body(len(body))
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}{about}\r\n"
    return head.encode() + (body or b"")


def _about_body(length: int) -> str:
    return f"Content-Type: application/json\r\nContent-Length: {length}\r\n"


class Load:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._measured = Measured()
        self._authorized = f"Authorization: Bearer {plan.api_key}\r\n"
        self._payments: deque[str] = deque(maxlen=1000)
        self._is_measuring = False
        self._is_over = False

    async def run(self) -> Measured:
        """Warms up, measures, and lets the requests under way end."""
        plan = self._plan
        connections = await self._connect_evenly(plan.clients)
        readers = [await connected(plan.port) for _ in range(plan.readers)]
        client = {
            "payments": self._pay,
            "intents": self._intend,
            "inserts": self._insert,
            "waits": self._wait,
        }[plan.work]
        tasks = [
            *(asyncio.create_task(client(it, n)) for n, it in enumerate(connections)),
            *(asyncio.create_task(self._read(it)) for it in readers),
        ]
        await asyncio.sleep(plan.warm_up_seconds)
        await self._measure()
        self._is_over = True
        _, unanswered = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
        if unanswered:
            self._measured.unexpected["unanswered"] = len(unanswered)
        for task in tasks:
            if not task.cancel() and task.exception() is not None:
                raise RuntimeError("a client failed") from task.exception()
        return self._measured

    async def _measure(self) -> None:
        trees = {**self._plan.trees, "load": os.getpid()}
        machine, cpu = procfs.machine_cpu_seconds(), procfs.cpu_seconds(trees)
        began, self._is_measuring = time.perf_counter(), True
        await asyncio.sleep(self._plan.seconds)
        self._is_measuring = False
        self._measured.seconds = time.perf_counter() - began
        after = procfs.cpu_seconds(trees)
        spent = {name: after[name] - before for name, before in cpu.items()}
        others = procfs.machine_cpu_seconds() - machine - sum(spent.values())
        self._measured.cpu_seconds = {**spent, "others": max(0.0, others)}

    async def _connect_evenly(self, number: int) -> list[Connection]:
        """Connections, as many to each worker of the server: chance is no part of the measurement."""
        pids = procfs.tree(self._plan.trees["server"])
        enough = number / self._plan.workers * EVEN_SHARE
        opened: list[Connection] = []
        for _ in range(CONNECT_TRIES):
            for connection in opened:
                connection.close()
            await asyncio.sleep(SETTLE_SECONDS)
            opened = [await connected(self._plan.port) for _ in range(number)]
            await asyncio.sleep(SETTLE_SECONDS)
            held = procfs.connections(pids, self._plan.port)
            self._measured.connections = held
            if len(held) == self._plan.workers and min(held) >= enough:
                break
        return opened

    # --- what a client does --------------------------------------------------------------------

    async def _pay(self, connection: Connection, client: int) -> None:
        for number in self._while_wanted():
            order = f"{self._plan.name}-{client}-{number}"
            status, body = await self._ask(
                connection, "authorize", self._authorization(order), CREATED
            )
            if status != CREATED:
                continue
            payment = payment_id(body)
            status, _ = await self._ask(
                connection, "capture", self._capture(order, payment), CREATED
            )
            if status == CREATED:
                self._payments.append(payment)

    def _authorization(self, order: str) -> bytes:
        body = (
            b'{"order_id":"%b","customer_id":"cus_bench","amount":5000,"currency":"USD","card":%b}'
            % (order.encode(), CARD)
        )
        headers = f"{self._authorized}Idempotency-Key: {order}-a\r\n"
        return request("POST", "/v1/authorizations", headers, body)

    def _capture(self, order: str, payment: str) -> bytes:
        headers = f"{self._authorized}Idempotency-Key: {order}-c\r\n"
        body = b'{"payment_id":"%b"}' % payment.encode()
        return request("POST", "/v1/captures", headers, body)

    async def _intend(self, connection: Connection, client: int) -> None:
        """With a card on file: the client's own, so that no two wait for one another."""
        _, body = await self._ask(
            connection, "method", self._post("payment_methods", METHOD), CREATED
        )
        paid_with = b'{"payment_method":"%b","cvc":"123"}' % own_id(body).encode()
        for number in self._while_wanted():
            key = f"{self._plan.name}-{client}-{number}"
            asked = self._post("payment_intents", INTENT % key.encode(), f"{key}-i")
            status, body = await self._ask(connection, "create", asked, CREATED)
            if status != CREATED:
                continue
            path = f"payment_intents/{own_id(body)}/confirm"
            await self._ask(connection, "confirm", self._post(path, paid_with, f"{key}-k"), OK)

    def _post(self, path: str, body: bytes, key: str | None = None) -> bytes:
        named = "" if key is None else f"Idempotency-Key: {key}\r\n"
        return request("POST", f"/v1/{path}", f"{self._authorized}{named}", body)

    async def _insert(self, connection: Connection, client: int) -> None:
        for number in self._while_wanted():
            body = b'{"reference":"%b-%d-%d","amount":5000}' % (
                self._plan.name.encode(),
                client,
                number,
            )
            await self._ask(connection, "insert", request("POST", "/inserts", "", body), CREATED)

    async def _wait(self, connection: Connection, _client: int) -> None:
        for _ in self._while_wanted():
            await self._ask(connection, "wait", request("GET", "/wait"), OK)

    async def _read(self, connection: Connection) -> None:
        for _ in self._while_wanted():
            await asyncio.sleep(READ_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311
            if self._plan.work == "waits":
                await self._ask(connection, "read", request("GET", "/fast"), OK)
            elif self._payments:
                path = f"/v1/receipts/{random.choice(self._payments)}"  # noqa: S311
                await self._ask(connection, "read", request("GET", path, self._authorized), OK)

    def _while_wanted(self) -> Iterator[int]:
        number = 0
        while not self._is_over:
            yield number
            number += 1

    async def _ask(
        self, connection: Connection, kind: str, what: bytes, expected: int
    ) -> tuple[int, bytes]:
        """Asks, measures, and counts what was not expected. A status of 0: no answer."""
        began = time.perf_counter()
        try:
            status, body = await connection.ask(what)
        except OSError as error:
            status, body = 0, type(error).__name__.encode()
        elapsed = (time.perf_counter() - began) * 1000
        if status != expected:
            await self._count_unexpected(kind, status, body)
        elif self._is_measuring:
            self._measured.milliseconds.setdefault(kind, []).append(round(elapsed, 3))
        return status, body

    async def _count_unexpected(self, kind: str, status: int, body: bytes) -> None:
        name, counts = f"{kind}: {status or body.decode()}", self._measured.unexpected
        counts[name] = counts.get(name, 0) + 1
        if len(self._measured.samples) < SAMPLES_KEPT:
            self._measured.samples.append(body[:LONGEST_SAMPLE].decode(errors="replace"))
        await asyncio.sleep(PAUSE_AFTER_FAILURE_SECONDS)


async def connected(port: int) -> Connection:
    """A fresh connection."""
    connection = Connection(port)
    await connection.open()
    return connection


def own_id(body: bytes) -> str:
    """The id of the object that the body is, which comes first in it."""
    begin = body.index(b'"id":"') + len(b'"id":"')
    return body[begin : body.index(b'"', begin)].decode()


def payment_id(body: bytes) -> str:
    """The id in a receipt, as it is written."""
    begin = body.index(b'"payment_id":"') + len(b'"payment_id":"')
    return body[begin : body.index(b'"', begin)].decode()


def main() -> None:
    """One plan from standard input to standard output."""
    plan = Plan(**json.loads(sys.stdin.readline()))
    gc.freeze()
    measured = asyncio.run(Load(plan).run())
    json.dump(asdict(measured), sys.stdout)


if __name__ == "__main__":
    main()
