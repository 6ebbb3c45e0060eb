"""`counterfoil listen`: events reach a program on the developer's own machine."""

import json
import threading
from collections.abc import Iterator

import pytest
import requests
import stripe
from click.testing import CliRunner
from werkzeug.serving import make_server

from infrastructure.webhooks.signatures import new_secret
from scripts.cli import main
from scripts.listen import ApiRefused, Events, forwarded
from tests.api.an_api import Api, Caller, an_api
from tests.api.conftest import NOWHERE
from tests.conftest import Databases
from tests.fakes import FakeBank, SteppableClock
from tests.infrastructure.webhooks.a_receiver import Receiver, answers, hangs_up

SECRET = new_secret()


@pytest.fixture(scope="module")
def served(databases: Databases) -> Iterator[tuple[Api, str]]:
    """The API at a port, and its URL."""
    with databases.clone() as url, an_api(url, BANK_URL=NOWHERE) as api:
        server = make_server("127.0.0.1", 0, api.app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with api.asking(FakeBank(SteppableClock())):
            yield api, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def merchant(served: tuple[Api, str]) -> Caller:
    return served[0].merchant()


def listening(served: tuple[Api, str], merchant: Caller, *kinds: str) -> Events:
    assert merchant.key is not None
    events = Events(served[1], merchant.key, kinds)
    wait_until_told(merchant)
    events.skip()
    return events


def wait_until_told(merchant: Caller) -> None:
    """All that was written so far; `get` asks again while the read model is behind."""
    assert merchant.get("/v1/events").status_code == 200


def test_what_happens_from_now_on_is_told_once_and_in_order(
    served: tuple[Api, str], merchant: Caller
) -> None:
    merchant.refunded()
    events = listening(served, merchant)
    quiet = events.new()
    for _ in range(120):
        merchant.authorized()
    merchant.declined()
    wait_until_told(merchant)

    found = [each["type"] for each in events.new()]

    assert (quiet, events.new()) == ([], [])
    assert found == ["payment.authorized"] * 120 + ["payment.failed"]


def test_only_what_is_wanted_is_told(served: tuple[Api, str], merchant: Caller) -> None:
    events = listening(served, merchant, "refund.*", "payment.succeeded")
    merchant.refunded()
    wait_until_told(merchant)

    assert {each["type"] for each in events.new()} == {
        "payment.succeeded",
        "refund.created",
        "refund.succeeded",
    }


def test_what_the_api_refuses_is_said(served: tuple[Api, str], merchant: Caller) -> None:
    with pytest.raises(ApiRefused, match="API key is not valid"):
        Events(served[1], "sk_test_none", []).skip()
    with pytest.raises(ApiRefused, match="type of event"):
        listening(served, merchant, "payment.exploded")
    with pytest.raises(requests.ConnectionError):
        Events("http://127.0.0.1:9", "sk_test_none", []).skip()


def test_it_is_forwarded_as_it_would_be_delivered(
    served: tuple[Api, str], merchant: Caller
) -> None:
    events = listening(served, merchant)
    merchant.authorized(metadata={"10": "é", "9": 1e-7})
    wait_until_told(merchant)
    (event,) = events.new()
    with Receiver() as receiver:
        receiver.will(answers(200), answers(302, Location="/other"), hangs_up)

        outcomes = [forwarded(event, receiver.url, SECRET) for _ in range(3)]

    assert outcomes == ["200", "302", "ConnectionError"]
    first = receiver.delivered[0]
    stripe.Webhook.construct_event(first.body, first.headers["stripe-signature"], SECRET)
    assert json.loads(first.body) == event
    assert b'"metadata":{"9":1e-7,"10":"\xc3\xa9"}' in first.body
    assert {each.path for each in receiver.delivered} == {"/hooks"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--forward-to", "localhost:3000", "--api-key", "sk"], "--forward-to must be an http"),
        (["--forward-to", "http://localhost:3000/"], "a secret key is needed"),
        (["--forward-to", "http://localhost/", "--api-key", "sk", "--secret", "x"], "--secret"),
        (["--forward-to", "http://localhost/", "--api-key", "sk", "--secret", "whsec_1"], "--secret"),
        (["--forward-to", "http://localhost/", "--api-key", "sk", "--api-base", "http://127.0.0.1:9"], "out of reach"),
    ],
)  # fmt: skip
def test_what_cannot_be_begun_is_told_in_one_line(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["listen", *arguments], env={"API_KEY": ""})

    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1
