"""The bank over HTTP: routes, headers and bodies; nothing here knows the rules.

Beside the published service there are doors of our own: `GET /__ledger` reads the books,
`GET` and `POST /__faults` the switches, and `POST /__accounts` opens an account or adds money,
`{"card_number", "cvv", "exp_month", "exp_year", "balance"}`. Where the bank has disputes, `POST /__disputes`
opens one, `{"capture_id", "amount"?, "reason"?}`, or decides it, `{"dispute_id", "decision": "won"|"lost"}`. None of them is slow or fails; neither is a
page for shoppers, where the bank has any.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping

from infrastructure.bank_simulator import replies
from infrastructure.bank_simulator.books import Books
from infrastructure.bank_simulator.desk import Call, Desk
from infrastructure.bank_simulator.faults import Faults, WrongSwitch
from infrastructure.bank_simulator.line import BodyTooLarge, Line, Message, Receive
from infrastructure.bank_simulator.operations import Operation
from infrastructure.bank_simulator.pages import Pages
from infrastructure.bank_simulator.refusals import Refused, Unreadable
from infrastructure.bank_simulator.remembered import Key
from infrastructure.bank_simulator.replies import Reply
from infrastructure.bank_simulator.requests import Fields, read_account, read_dispute

log = logging.getLogger(__name__)

Send = Callable[[Message], Awaitable[None]]

KEY_HEADER = b"idempotency-key"
REPLAYED = (b"x-idempotent-replayed", b"true")
NO_SUCH_PAGE = replies.protocol_error(404, "404 page not found")
NOT_ALLOWED = replies.protocol_error(405, "Method Not Allowed")
KEY_MISSING = replies.protocol_error(400, "the Idempotency-Key header is required")
TOO_LARGE = replies.protocol_error(413, "request body too large")


class App:
    """An ASGI application of one process; `hang_up` ends the calls that still wait."""

    def __init__(
        self,
        *,
        desk: Desk,
        books: Books,
        faults: Faults,
        operations: Mapping[str, Operation],
        pages: Pages | None,
        gives_up_seconds: float,
    ) -> None:
        self._desk = desk
        self._operations = operations
        self._pages = pages
        self._books = books
        self._faults = faults
        self._gives_up_seconds = gives_up_seconds
        self._lines: set[Line] = set()
        self._doors: dict[tuple[str, str], Callable[[bytes], Reply]] = {
            ("GET", "/health"): self._health,
            ("GET", "/__ledger"): self._ledger,
            ("GET", "/__faults"): self._show_faults,
            ("POST", "/__faults"): self._merge_faults,
            ("POST", "/__accounts"): self._deposit,
        }
        if any(each.name == "dispute_notices" for each in operations.values()):
            self._doors["POST", "/__disputes"] = self._dispute
        self._door_paths = {path for _, path in self._doors}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        line = Line(receive, scope.get("client"), self._gives_up_seconds)
        self._lines.add(line)
        try:
            reply = await self._reply(scope, line)
        except Exception:
            log.exception("%s %s", scope["method"], scope["path"])
            raise
        else:
            if reply is not None and not line.cut_off:
                await _send(reply, send)
        finally:
            self._lines.discard(line)
            line.close()

    def hang_up(self) -> None:
        """Serve nobody any more who has not been served yet."""
        self._desk.close()
        for line in list(self._lines):
            line.cut()

    async def _reply(self, scope: Message, line: Line) -> Reply | None:
        try:
            body = await line.body(_announced_length(scope))
        except TimeoutError:
            line.drop()
            return None
        except BodyTooLarge:
            return TOO_LARGE
        method, path = scope["method"], scope["path"]
        if operation := self._operations.get(path):
            return await self._post(operation, scope, body, line)
        if door := self._doors.get((method, path)):
            return door(body)
        if path in self._door_paths:
            return NOT_ALLOWED
        return self._page(scope, body) or await self._get(method, path, line)

    def _page(self, scope: Message, body: bytes) -> Reply | None:
        if self._pages is None or self._faults.switches.database_down:
            return None
        return self._pages.visit(scope["method"], scope["path"], scope["query_string"], body)

    async def _post(
        self, operation: Operation, scope: Message, body: bytes, line: Line
    ) -> Reply | None:
        if scope["method"] != "POST":
            return NOT_ALLOWED
        raw_key = _header(scope, KEY_HEADER)
        if not raw_key:
            return KEY_MISSING
        call = Call(operation=operation, key=Key.from_header(raw_key), body=body, line=line)
        return await self._desk.post(call)

    async def _get(self, method: str, path: str, line: Line) -> Reply | None:
        parent, _, identifier = path.rpartition("/")
        operation = self._operations.get(parent)
        if operation is None or operation.find is None or not identifier:
            return NO_SUCH_PAGE
        if method != "GET":
            return NOT_ALLOWED
        return await self._desk.get(operation, identifier, line)

    def _health(self, _body: bytes) -> Reply:
        if self._faults.switches.database_down:
            return replies.answer({"status": "unhealthy"}, 503)
        return replies.answer({"status": "healthy"})

    def _ledger(self, _body: bytes) -> Reply:
        seen = {
            "overlaps": self._desk.overlaps,
            "calls": self._desk.calls,
            "in_flight": self._desk.in_flight,
        }
        return replies.answer(self._books.statement(self._desk.now()) | seen)

    def _show_faults(self, _body: bytes) -> Reply:
        return replies.answer(self._faults.state())

    def _merge_faults(self, body: bytes) -> Reply:
        try:
            self._faults.merge(Fields(body).all())
        except Unreadable:
            return replies.protocol_error(400, "the body must be a JSON object")
        except WrongSwitch as wrong:
            return replies.answer({"error": "wrong_switch", "message": str(wrong)}, 400)
        return replies.answer(self._faults.state())

    def _deposit(self, body: bytes) -> Reply:
        try:
            return replies.answer(self._books.deposit(read_account(body)))
        except Unreadable:
            return replies.protocol_error(400, "invalid request body")
        except Refused as refused:
            return replies.refusal(refused.code)

    def _dispute(self, body: bytes) -> Reply:
        try:
            return replies.answer(self._books.dispute(read_dispute(body), self._desk.now()))
        except Unreadable:
            return replies.protocol_error(400, "invalid request body")
        except Refused as refused:
            return replies.refusal(refused.code)


def _header(scope: Message, wanted: bytes) -> bytes:
    """The first header of that name, or nothing."""
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""


def _announced_length(scope: Message) -> int | None:
    """None: it comes in chunks, and its end says so."""
    if _header(scope, b"transfer-encoding"):
        return None
    return int(_header(scope, b"content-length") or 0)


async def _send(reply: Reply, send: Send) -> None:
    headers = [
        (b"content-type", reply.content_type),
        (b"content-length", str(len(reply.body)).encode()),
        *reply.headers,
    ]
    if reply.replayed:
        headers.append(REPLAYED)
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": False})
