"""Lines between programs that lose, delay and cut what they carry, as networks do.

A line listens at a port or at a Unix socket and carries each connection to its server. In rough
weather a message there draws a mishap now and then; in silence every one does. What a caller hung up
on is not delivered later: a delay is shorter than the margins of our settings.
"""

import asyncio
import contextlib
import random
import threading
from collections import Counter
from collections.abc import Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

CHUNK: Final = 65536
STOP_SECONDS: Final = 5.0
DELAY_SECONDS: Final = (0.05, 1.5)
# A server that is not told that its caller hung up goes on with what it was asked.
UNTOLD_SECONDS: Final = 20.0


class Mishap(StrEnum):
    """What becomes of one message to the server, or of the answer to it."""

    DELAYED = "delayed"
    LOST = "lost on the way there, and silence"
    SWALLOWED = "delivered, and nothing heard of it any more on either side"
    RESET = "reset before it was delivered"
    DELIVERED_AND_RESET = "delivered, and reset instead of the answer"
    CUT_THERE = "cut after some bytes of it"
    CUT_BACK = "cut after some bytes of the answer"


EVERY: Final = tuple(Mishap)
SILENT: Final = (Mishap.LOST, Mishap.SWALLOWED)


@dataclass(frozen=True, slots=True)
class Weather:
    """How often a message meets with a mishap, and with which."""

    rate: float = 0.0
    mishaps: tuple[Mishap, ...] = EVERY


CLEAR: Final = Weather()
SILENCE: Final = Weather(1.0, SILENT)


@dataclass(frozen=True, slots=True)
class Address:
    """A port of this host, or a Unix socket."""

    port: int = 0
    path: Path | None = None


class Lines:
    """All lines of a run, carried by one thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lines", daemon=True)
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._run(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_SECONDS)
        self._loop.close()

    def open(self, at: Address, to: Address, rng: random.Random) -> "Line":
        """A line that listens `at` an address, in clear weather."""
        line = Line(to, rng)
        self._run(self._listen(line, at))
        return line

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(STOP_SECONDS)

    async def _listen(self, line: "Line", at: Address) -> None:
        async def carried(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._tasks.add(task)
            try:
                # The end of the run is the end of the connection, and no news to the server's loop.
                with contextlib.suppress(asyncio.CancelledError):
                    await line.carry(reader, writer)
            finally:
                self._tasks.discard(task)

        if at.path is not None:
            await asyncio.start_unix_server(carried, at.path)
        else:
            await asyncio.start_server(carried, "127.0.0.1", at.port)

    async def _end_all(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Line:
    """One line. `weather` may be changed at any time; `struck` counts the mishaps."""

    def __init__(self, to: Address, rng: random.Random) -> None:
        self._to = to
        self._rng = rng
        self.weather = CLEAR
        self.struck: Counter[str] = Counter()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side hangs up or it is struck."""
        try:
            server = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, reader, writer, *server)
        try:
            await connection.carry()
        finally:
            for each in (writer, server[1]):
                each.transport.abort()

    def draw(self) -> Mishap | None:
        """What befalls the next message."""
        weather = self.weather
        if self._rng.random() >= weather.rate:
            return None
        mishap = self._rng.choice(weather.mishaps)
        self.struck[mishap.value] += 1
        return mishap

    def delay(self) -> float:
        """Seconds that a delayed message takes."""
        return self._rng.uniform(*DELAY_SECONDS)

    def part_of(self, chunk: bytes) -> bytes:
        """The beginning of `chunk`, up to where it is cut."""
        return chunk[: self._rng.randrange(len(chunk))]

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._to.path is not None:
            return await asyncio.open_unix_connection(self._to.path)
        return await asyncio.open_connection("127.0.0.1", self._to.port)


class _Connection:
    """Both directions of one connection."""

    def __init__(
        self,
        line: Line,
        from_caller: asyncio.StreamReader,
        to_caller: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        self._line = line
        self._from_caller, self._to_caller = from_caller, to_caller
        self._from_server, self._to_server = from_server, to_server
        self._of_answer: Mishap | None = None

    async def carry(self) -> None:
        """Until one of the directions ends; both end with it."""
        tasks = {asyncio.create_task(self._there()), asyncio.create_task(self._back())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _there(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._from_caller.read(CHUNK):
                mishap = self._line.draw()
                if mishap is Mishap.LOST:
                    await self._until_hung_up()
                    return
                if mishap in (Mishap.RESET, Mishap.CUT_THERE):
                    if mishap is Mishap.CUT_THERE:
                        await self._deliver(self._line.part_of(chunk))
                    return
                if mishap is Mishap.DELAYED:
                    await asyncio.sleep(self._line.delay())
                    if self._is_hung_up():
                        return
                elif mishap is not None:
                    self._of_answer = mishap
                await self._deliver(chunk)
                if mishap is Mishap.SWALLOWED:
                    await asyncio.sleep(UNTOLD_SECONDS)
                    return

    async def _back(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._from_server.read(CHUNK):
                if self._of_answer is Mishap.SWALLOWED:
                    continue
                if self._of_answer is Mishap.CUT_BACK:
                    self._to_caller.write(self._line.part_of(chunk))
                    await self._to_caller.drain()
                if self._of_answer is not None:
                    return
                self._to_caller.write(chunk)
                await self._to_caller.drain()

    async def _deliver(self, chunk: bytes) -> None:
        self._to_server.write(chunk)
        await self._to_server.drain()

    def _is_hung_up(self) -> bool:
        return self._from_caller.at_eof() or self._from_caller.exception() is not None

    async def _until_hung_up(self) -> None:
        """The line is dead, and nobody says so: it stays until the caller has had enough."""
        while not self._is_hung_up():
            await asyncio.sleep(0.05)
