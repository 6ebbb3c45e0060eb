"""One delivery: whatever a receiver does, it is told of in time, and nothing else is reached."""

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientConnectorError
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infrastructure.webhooks.sender import MOST_ANSWER_SHOWN, Result, Sender, a_sender
from tests.infrastructure.webhooks.a_receiver import (
    Behaviour,
    Receiver,
    answers,
    drips,
    floods,
    hangs,
    hangs_up,
    sends,
)

NAME = "receiver.example"
LONG = b"x" * 100_000
PATIENT_SECONDS, IMPATIENT_SECONDS = 20.0, 0.3


class Names(AbstractResolver):
    """A name server that says these addresses, one after the other."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        several = len(self._addresses) > 1
        address = self._addresses.pop(0) if several else self._addresses[0]
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Nothing is open."""


def sent(*urls: str, allows_local: bool = True, **options: Any) -> list[Result]:
    """What came of these, one after the other, by one sender."""

    async def send() -> list[Result]:
        options.setdefault("timeout_seconds", PATIENT_SECONDS)
        async with a_sender(allows_local=allows_local, **options) as sender:
            return [await sender.send(url, b'{"a":1}', {"webhook-id": "evt_1"}) for url in urls]

    return asyncio.run(send())


def patience(expected: Result) -> float:
    """Little, where all of it will be needed."""
    return IMPATIENT_SECONDS if expected.error == "timeout" else PATIENT_SECONDS


def test_a_delivery_is_posted_with_its_headers_and_nothing_beside_them() -> None:
    with Receiver() as receiver:
        (result,) = sent(f"{receiver.url}?token=a%20b%2Fc")

    (delivered,) = receiver.delivered
    assert result == Result(status_code=200, answer="ok")
    assert (delivered.path, delivered.body) == ("/hooks?token=a%20b%2Fc", b'{"a":1}')
    assert set(delivered.headers) == {
        *("host", "content-type", "content-length", "user-agent", "webhook-id", "accept"),
    }
    assert delivered.headers["content-type"] == "application/json"


def test_a_connection_is_kept_for_the_next() -> None:
    with Receiver() as receiver:
        sent(receiver.url, receiver.url)

    assert (len(receiver.delivered), receiver.connections) == (2, 1)


@pytest.mark.parametrize(
    ("behaviour", "expected"),
    [
        (answers(204), Result(status_code=204)),
        (answers(500, b"a\x00b\xff"), Result(status_code=500, answer="a\ufffdb\ufffd")),
        (answers(302, Location="http://127.0.0.1:1/"), Result(status_code=302)),
        (answers(200, LONG), Result(status_code=200, answer="x" * MOST_ANSWER_SHOWN)),
        (floods, Result(status_code=200, answer="x" * MOST_ANSWER_SHOWN)),
        (
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", then="hang up"),
            Result(status_code=200, answer="half"),
        ),
        (
            sends(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
            Result(status_code=200, answer="half"),
        ),
        (sends(b"HTTP/1.1 200 OK\r\nX-", then="hang up"), Result(error="connection_lost")),
        (hangs_up, Result(error="connection_lost")),
        (sends(b"SSH-2.0-OpenSSH_9.9\r\n"), Result(error="not_http")),
        (sends(b"HTTP/1.1 200 OK\r\nX: " + LONG), Result(error="not_http")),
        (hangs, Result(error="timeout")),
        (drips, Result(error="timeout")),
    ],
)
def test_whatever_a_receiver_does_it_is_told_of_in_time(
    behaviour: Behaviour, expected: Result
) -> None:
    with Receiver() as receiver:
        receiver.will(behaviour)

        (result,) = sent(receiver.url, timeout_seconds=patience(expected))
        (after,) = sent(receiver.url)

    assert (result, after) == (expected, Result(status_code=200, answer="ok"))
    assert len(receiver.delivered) == 2


def test_where_nobody_listens_nothing_is_delivered() -> None:
    with Receiver() as receiver:
        pass

    assert sent(receiver.url, "http://no-such-name.invalid/") == [
        Result(error="unreachable"),
        Result(error="name_unknown"),
    ]


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "64:ff9b::1"])  # fmt: skip
def test_a_name_that_leads_to_an_address_that_is_not_public_is_not_connected_to(
    address: str,
) -> None:
    with Receiver() as receiver:
        url = f"https://{NAME}:{receiver.port}/"

        (result,) = sent(url, allows_local=False, resolver=Names(address))

    assert (result, receiver.connections) == (Result(error="address_refused"), 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "127.1", "0x7f000001"])  # fmt: skip
def test_an_address_in_the_url_is_no_way_around(host: str) -> None:
    with Receiver() as receiver:
        (result,) = sent(f"https://{host}:{receiver.port}/", allows_local=False)

    assert result.error in {"address_refused", "name_unknown", "not_http"}
    assert receiver.connections == 0


def test_in_production_nothing_is_sent_in_clear() -> None:
    (result,) = sent("http://shop.example/", allows_local=False, resolver=Names("8.8.8.8"))

    assert result == Result(error="address_refused")


def test_a_name_that_comes_to_lead_elsewhere_is_looked_at_each_time() -> None:
    """The server hangs up after each, so that each is another connection."""
    names = Names("127.0.0.1", "169.254.169.254", "127.0.0.1")
    with Receiver() as receiver:
        url = f"http://{NAME}:{receiver.port}/"
        receiver.will(*[answers(200, Connection="close")] * 2)

        async def send() -> list[Result]:
            async with a_sender(allows_local=True, resolver=names) as sender:
                results = []
                for _ in range(3):
                    results.append(await sender.send(url, b"{}", {}))
                    sender._session.connector.clear_dns_cache()  # type: ignore[union-attr]
            return results

        found = [(each.status_code, each.error) for each in asyncio.run(send())]

    assert found == [(200, None), (None, "address_refused"), (200, None)]


class NoFilesLeft:
    """A session of a process that has as many open files as it may."""

    async def post(self, *_: Any, **__: Any) -> Any:
        key: Any = None
        raise ClientConnectorError(key, OSError(errno.EMFILE, "Too many open files"))


def test_what_is_our_fault_is_not_said_to_be_the_receivers() -> None:
    session: Any = NoFilesLeft()
    sender = Sender(session, PATIENT_SECONDS, allows_plain=True)

    with pytest.raises(ClientConnectorError):
        asyncio.run(sender.send("https://shop.example/", b"{}", {}))


# --- TLS ----------------------------------------------------------------------------------------


def a_certificate(folder: Path, *names: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A receiver's side, which shows a certificate for these names; and a sender's, which trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a receiver")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(who, who, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([_name(each) for each in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    receiving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    receiving.load_cert_chain(file)
    return receiving, ssl.create_default_context(cafile=str(file))


def _name(text: str) -> x509.GeneralName:
    if text[0].isdigit():
        return x509.IPAddress(ipaddress.ip_address(text))
    return x509.DNSName(text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([NAME], Result(status_code=200, answer="ok")),
        (["another.example", "127.0.0.1"], Result(error="tls_failed")),
    ],
)
def test_a_certificate_is_for_the_name_and_not_for_the_address(
    tmp_path: Path, names: Sequence[str], expected: Result
) -> None:
    receiving, trusting = a_certificate(tmp_path, *names)
    with Receiver(receiving) as receiver:
        url = f"https://{NAME}:{receiver.port}/"

        (result,) = sent(url, tls=trusting, resolver=Names("127.0.0.1"))

    assert result == expected
    assert len(receiver.delivered) == (1 if expected.status_code else 0)


def test_a_certificate_that_nobody_vouches_for_is_not_taken(tmp_path: Path) -> None:
    receiving, _ = a_certificate(tmp_path, "127.0.0.1")
    with Receiver(receiving) as receiver:
        (result,) = sent(receiver.url)

    assert (result, receiver.delivered) == (Result(error="tls_failed"), [])


def test_a_receiver_that_never_shakes_hands_is_given_up() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
        (result,) = sent(url, timeout_seconds=IMPATIENT_SECONDS)

    assert result == Result(error="timeout")
