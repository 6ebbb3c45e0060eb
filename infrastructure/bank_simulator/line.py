"""The line to one caller: reading what it sends, noticing that it hung up, hanging up on it."""

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# The shapes of ASGI, which this server speaks.
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

LARGEST_BODY = 1_000_000
OPEN_FILES = Path("/dev/fd")


class BodyTooLarge(Exception):
    """More than `LARGEST_BODY` bytes."""


class Line:
    """One call's connection. The bank gives up on a call after `limit_seconds`."""

    def __init__(
        self, receive: Receive, client: tuple[str, str] | None, limit_seconds: float
    ) -> None:
        self._receive = receive
        self._client = client
        self._deadline = asyncio.get_running_loop().time() + limit_seconds
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False  # the caller hung up, as far as we have noticed
        self.dropped = False  # we hung up

    async def body(self, length: int | None) -> bytes:
        """Read the body; `length` is the announced one, which saves a round to the server.

        Raises `BodyTooLarge`, and `TimeoutError` at the limit.
        """
        if length == 0:
            return b""
        async with asyncio.timeout_at(self._deadline):
            body = b""
            more = True
            while more and len(body) != length:
                message = await self._receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > LARGEST_BODY:
                    raise BodyTooLarge
        return body

    @property
    def is_given_up(self) -> bool:
        """The limit has passed: nothing is begun for this call any more."""
        return asyncio.get_running_loop().time() > self._deadline

    @property
    def cut_off(self) -> bool:
        """There is nobody to answer any more."""
        return self.gone or self.dropped

    async def wait(self, seconds: float) -> float:
        """Keep the caller waiting; the seconds that were left when it or we hung up, or 0."""
        if seconds <= 0 or self.cut_off:
            return max(seconds, 0)
        clock = asyncio.get_running_loop().time
        until = clock() + seconds
        await self._watch(min(until, self._deadline) - clock())
        return self._left(until)

    def _left(self, until: float) -> float:
        if until > self._deadline and not self.cut_off:
            self.drop()
        if not self.cut_off:
            return 0
        return max(until - asyncio.get_running_loop().time(), 0)

    async def _watch(self, seconds: float) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._until_hung_up())
        await asyncio.wait({self._watcher}, timeout=seconds)

    async def _until_hung_up(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = not self.dropped

    def cut(self) -> None:
        """Hang up on a waiting caller as if it had done so itself."""
        self.gone = True
        self.drop()
        self.close()

    def drop(self) -> None:
        """Close the connection without an answer.

        The server has no call for this, but it runs in this process, so the socket is ours: found
        by the caller's address and shut down under the server, which then sees a dead connection.
        """
        self.dropped = True
        if self._client is not None:
            host, port = self._client
            _shut_down_socket_of((host, int(port)))

    def close(self) -> None:
        """The call is over: stop listening for the caller to hang up."""
        if self._watcher is not None:
            self._watcher.cancel()


def _shut_down_socket_of(peer: tuple[str, int]) -> None:
    for entry in list(OPEN_FILES.iterdir()):
        with suppress(OSError):  # not a socket, not connected, or closed since it was listed
            if _shut_down_if_of(peer, int(entry.name)):
                return


def _shut_down_if_of(peer: tuple[str, int], descriptor: int) -> bool:
    if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
        return False
    with socket.socket(fileno=os.dup(descriptor)) as candidate:
        is_of_peer = bool(candidate.getpeername()[:2] == peer)
        if is_of_peer:
            candidate.shutdown(socket.SHUT_RDWR)
        return is_of_peer
