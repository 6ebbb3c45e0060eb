"""Sends one delivery: to an allowed address, once, bounded in time, and in what is read of the answer.

A receiver that hangs costs a socket and no thread, so that it is in nobody's way.
"""

import asyncio
import errno
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver
from yarl import URL

from infrastructure.webhooks.addresses import AddressRefused, guarded

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 10.0
# Once there is a status: how long, and how far, it is read what else there is.
ANSWER_SECONDS: Final = 1.0
MOST_ANSWER_BYTES: Final = 16_384
MOST_ANSWER_SHOWN: Final = 500
# Names are looked up in threads, and whoever's name server hangs keeps one until that is given up, long after the
# delivery was: several times as many as there may be under way at those who fail, so that some are left.
RESOLVERS: Final = 512
# Each is a file of the process that is open: not for long, where there are many receivers.
KEPT_ALIVE_SECONDS: Final = 10.0
# What a connection fails of that is nobody's fault but ours.
OUT_OF_FILES: Final = (errno.EMFILE, errno.ENFILE)
USER_AGENT: Final = "Counterfoil/1 (webhooks)"
CONTROLS: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of it: a status, or why there is none; and how the answer began."""

    status_code: int | None = None
    error: str | None = None
    answer: str = ""


class Sender:
    """Holds connections to receivers. To be used in one event loop."""

    def __init__(
        self, session: aiohttp.ClientSession, timeout_seconds: float, *, allows_plain: bool
    ) -> None:
        self._session, self._timeout_seconds = session, timeout_seconds
        self._allows_plain = allows_plain

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Result:
        """POSTs `body`. Raises nothing that a receiver can be the cause of; ClientConnectorError where
        this process has no files left."""
        if not self._allows_plain and not url.lower().startswith("https:"):
            return Result(error="address_refused")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._sent(url, body, headers)
        except TimeoutError:
            return Result(error="timeout")
        except aiohttp.ClientConnectorError as error:
            if error.errno in OUT_OF_FILES:
                raise
            return Result(error=_unconnected(error))
        except aiohttp.ClientConnectionError:
            return Result(error="connection_lost")
        except (aiohttp.ClientError, ValueError, OSError):
            return Result(error="not_http")

    async def _sent(self, url: str, body: bytes, headers: Mapping[str, str]) -> Result:
        response = await self._session.post(
            URL(url, encoded=True), data=body, headers=headers, allow_redirects=False
        )
        try:
            answer = await _beginning(response, min(ANSWER_SECONDS, self._timeout_seconds / 2))
            return Result(status_code=response.status, answer=answer)
        finally:
            if response.content.at_eof():
                response.release()
            else:
                response.close()


async def _beginning(response: aiohttp.ClientResponse, seconds: float) -> str:
    """How the answer begins. Its status is what counts, whatever becomes of the rest."""
    read = b""
    try:
        async with asyncio.timeout(seconds):
            async for chunk in response.content.iter_any():
                read += chunk
                if len(read) > MOST_ANSWER_BYTES:
                    break
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        pass
    return CONTROLS.sub("\ufffd", read[: 4 * MOST_ANSWER_SHOWN].decode(errors="replace"))[
        :MOST_ANSWER_SHOWN
    ]


def _unconnected(error: aiohttp.ClientConnectorError) -> str:
    """Why there is no connection, in a word that may be told to the merchant."""
    if _is_caused_by(error, AddressRefused):
        return "address_refused"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name_unknown"
    if isinstance(error, aiohttp.ClientSSLError):
        return "tls_failed"
    return "unreachable"


def _is_caused_by(error: BaseException | None, kind: type[BaseException]) -> bool:
    """Through causes, and through what several addresses of one name failed of."""
    if error is None or isinstance(error, kind):
        return error is not None
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    causes = (error.__cause__, error.__context__, getattr(error, "os_error", None), *inner)
    return any(_is_caused_by(each, kind) for each in causes if each is not None)


@asynccontextmanager
async def a_sender(
    *,
    allows_local: bool,
    timeout_seconds: float = TOTAL_SECONDS,
    tls: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
) -> AsyncIterator[Sender]:
    """A sender, for as long as the block is. `allows_local`: outside production, where what is
    not encrypted is allowed as well; `tls`: whom to trust, where that is not whom the machine trusts."""
    names = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="names")
    loop = asyncio.get_running_loop()
    loop.set_default_executor(names)
    connector = aiohttp.TCPConnector(
        limit=0,
        ssl=tls or _trusting(),
        resolver=resolver,
        keepalive_timeout=KEPT_ALIVE_SECONDS,
        socket_factory=guarded(allows_local=allows_local),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        headers={"User-Agent": USER_AGENT, "Content-Type": "application/json"},
        skip_auto_headers=("Accept-Encoding",),
    ) as session:
        yield Sender(session, timeout_seconds, allows_plain=allows_local)
    # Whoever's name server hangs is not waited for at the end.
    names.shutdown(wait=False, cancel_futures=True)
    loop.set_default_executor(ThreadPoolExecutor(1))


def _trusting() -> ssl.SSLContext:
    """Whom the machine trusts, and whom everybody does, since some machines trust nobody yet."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context
