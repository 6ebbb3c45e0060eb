"""The bank's front door: one process, one event loop, one SQLite file."""

import asyncio
import errno
import gc
import re
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server

from infrastructure.bank_simulator.app import App
from infrastructure.bank_simulator.books import Books
from infrastructure.bank_simulator.chaos import Chaos
from infrastructure.bank_simulator.database import Database, DatabaseUnusable
from infrastructure.bank_simulator.desk import Desk
from infrastructure.bank_simulator.faults import LONGEST_PAUSE_MS, Faults, Switches
from infrastructure.bank_simulator.operations import offered
from infrastructure.bank_simulator.pages import Pages
from infrastructure.bank_simulator.profiles import PROFILES
from infrastructure.bank_simulator.remembered import RememberedAnswers

LARGEST_PORT = 65_535
CONNECTIONS = 4096
GRACE_SECONDS = 0.5
START_TIMEOUT_SECONDS = 10.0
PROBE_SECONDS = 0.02
LONGEST_EXPIRY_HOURS = 24 * 365 * 10
LONGEST_LIMIT_SECONDS = 600
LONGEST_SETTLING_SECONDS = 30 * 24 * 3600
PUBLIC_URL = re.compile(r"https?://[!-~]{1,200}")


class WrongOptions(ValueError):
    """Options that the bank cannot be started with; the message is one clear line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BankOptions:
    """How the bank is started. The defaults are the partner's manners.

    `happy_balance`: cents for the happy-path card, if more than it was issued with.
    `gives_up_seconds`: how long it works on a call at most.
    `settle_seconds`: until a bank transfer is settled. `public_url`: where browsers find the pages for
    shoppers, if not where the bank listens. `seed`: makes latency and failures repeatable. Raises
    `WrongOptions`.
    """

    failure_rate: float = 0.05
    min_latency_ms: int = 100
    max_latency_ms: int = 2_000
    auth_expiry_hours: float = 168
    profile: str = "ficmart"
    happy_balance: int | None = None
    gives_up_seconds: float = 15
    settle_seconds: float = 2
    public_url: str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for holds, sentence in (
            (0 <= self.failure_rate <= 1, "the failure rate must be between 0 and 1"),
            (self.min_latency_ms >= 0, "the lowest latency must not be negative"),
            (
                self.min_latency_ms <= self.max_latency_ms,
                "the lowest latency must not be above the highest",
            ),
            (
                self.max_latency_ms <= LONGEST_PAUSE_MS,
                f"the highest latency must be at most {LONGEST_PAUSE_MS} ms",
            ),
            (
                0 <= self.auth_expiry_hours <= LONGEST_EXPIRY_HOURS,
                f"the authorization expiry must be between 0 and {LONGEST_EXPIRY_HOURS} hours",
            ),
            (
                0 < self.gives_up_seconds <= LONGEST_LIMIT_SECONDS,
                f"the bank has to give up on a call within {LONGEST_LIMIT_SECONDS} seconds",
            ),
            (
                0 <= self.settle_seconds <= LONGEST_SETTLING_SECONDS,
                f"a transfer must settle within 0 to {LONGEST_SETTLING_SECONDS} seconds",
            ),
            (
                self.public_url is None or PUBLIC_URL.fullmatch(self.public_url) is not None,
                "the public URL must be http(s)://…",
            ),
            (self.profile in PROFILES, f"the profile must be one of {', '.join(PROFILES)}"),
            (
                self.happy_balance is None or 0 <= self.happy_balance < 2**62,
                "the balance must be a number of cents, 0 or more",
            ),
        ):
            if not holds:
                raise WrongOptions(sentence)


def run(*, host: str, port: int, database: Path, options: BankOptions) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free one, named in the line that is printed.

    Raises `WrongOptions` if the address or the file cannot be used, before anything is started.
    """
    address = _free_address(host, port)
    try:
        disk = Database(database)
    except DatabaseUnusable as error:
        raise WrongOptions(str(error)) from error
    try:
        app = build_app(disk, options, pages_at=options.public_url or _url(address))
        gc.freeze()
        asyncio.run(_serve(app, address, options.profile))
    finally:
        disk.close()


def build_app(database: Database, options: BankOptions, *, pages_at: str) -> App:
    """The whole bank without its socket; `pages_at` is the address that browsers find it at."""
    profile = PROFILES[options.profile]
    books = Books(database, profile)
    if options.happy_balance is not None:
        books.fund_happy_card(options.happy_balance)
    faults = Faults(_switches(options))
    desk = Desk(
        books=books,
        remembered=RememberedAnswers(database),
        profile=profile,
        faults=faults,
        chaos=Chaos(options.seed),
        clock=time.time,
        settle_seconds=options.settle_seconds,
        pages_at=pages_at.rstrip("/"),
    )
    return App(
        desk=desk,
        books=books,
        faults=faults,
        operations=offered(profile),
        pages=Pages(books, desk.now) if profile.challenges else None,
        gives_up_seconds=options.gives_up_seconds,
    )


def _switches(options: BankOptions) -> Switches:
    return Switches(
        failure_rate=options.failure_rate,
        min_latency_ms=options.min_latency_ms,
        max_latency_ms=options.max_latency_ms,
        auth_expiry_seconds=options.auth_expiry_hours * 3600,
    )


def _free_address(host: str, port: int) -> tuple[str, int]:
    """The server shares ports between processes, so a port in use has to be noticed here."""
    if not 0 <= port <= LARGEST_PORT:
        raise WrongOptions(f"the port must be between 0 and {LARGEST_PORT}")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
            name = probe.getsockname()
    except OSError as error:
        in_use = error.errno == errno.EADDRINUSE
        reason = "the port is in use; choose another with --port" if in_use else str(error)
        raise WrongOptions(f"cannot listen at {host}:{port}: {reason}") from error
    return str(name[0]), int(name[1])


def _url(address: tuple[str, int]) -> str:
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _serve(app: App, address: tuple[str, int], profile: str) -> None:
    host, port = address
    # Half of the embedded server's methods have no types.
    server: Any = Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=CONNECTIONS,
        backpressure=CONNECTIONS,
        log_enabled=False,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve())
    await _until_listening(address)
    sys.stdout.write(f"bank simulator ({profile}) listening at {_url(address)}\n")
    sys.stdout.flush()
    await stop.wait()
    server.stop()
    await _finish(app, serving)


async def _until_listening(address: tuple[str, int]) -> None:
    async with asyncio.timeout(START_TIMEOUT_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(*address)
            except OSError:
                await asyncio.sleep(PROBE_SECONDS)
            else:
                writer.close()
                return


async def _finish(app: App, serving: asyncio.Task[None]) -> None:
    """Let the calls in flight end within the grace, then hang up on those that are left."""
    await asyncio.wait({serving}, timeout=GRACE_SECONDS)
    app.hang_up()
    await asyncio.wait({serving}, timeout=GRACE_SECONDS)
