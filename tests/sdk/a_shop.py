"""What every flow needs: keys, a worker, a shopper who approves or refuses, and patience."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import requests

from infrastructure.api_keys import KeyType
from tests.api.a_server import PROJECT
from tests.api.an_api import Api, settings_for

T = TypeVar("T")

PATIENCE_SECONDS: Final = 20
POLL_SECONDS: Final = 0.1
# Tokens of cards that the bank declines, and what the API says of them: code and decline code.
DECLINES: Final = {
    "pm_card_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_visa_chargeDeclined": ("card_declined", "generic_decline"),
    "pm_card_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_visa_chargeDeclinedInsufficientFunds": ("card_declined", "insufficient_funds"),
    "pm_card_chargeDeclinedExpiredCard": ("expired_card", None),
    "pm_card_chargeDeclinedIncorrectCvc": ("incorrect_cvc", None),
    "pm_card_chargeDeclinedProcessingError": ("processing_error", None),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKeys:
    """Of one merchant, in test mode."""

    secret: str
    publishable: str

    @classmethod
    def of_a_new_merchant(cls, api: Api) -> "ApiKeys":
        merchant = api.merchant()
        publishable = api.merchant(merchant.merchant, type=KeyType.PUBLISHABLE)
        assert merchant.key is not None
        assert publishable.key is not None
        return cls(secret=merchant.key, publishable=publishable.key)


@contextmanager
def a_worker(folder: Path, database_url: str, **environ: str) -> Iterator[None]:
    """In a process of its own, as `counterfoil work` starts it."""
    environment = settings_for(database_url, DATA_DIR=str(folder), **environ)
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "scripts.cli", "work"],
            cwd=PROJECT,
            env={"PATH": os.environ["PATH"], **environment},
            stdout=log,
            stderr=log,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def the_shopper_decides(url: str, decision: str) -> requests.Response:
    """At the bank's page; the answer is where the shopper is sent then, or that they are thanked."""
    page = requests.get(url, timeout=PATIENCE_SECONDS)
    assert page.status_code == 200, page.text
    answer = requests.post(
        url, data={"decision": decision}, timeout=PATIENCE_SECONDS, allow_redirects=False
    )
    assert answer.status_code < 400, answer.text
    return answer


def once(find: Callable[[], T], holds: Callable[[T], bool]) -> T:
    """What is found once it holds, for as long as patience lasts."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds(found := find()):
        assert time.monotonic() < deadline, f"it never came true of {found}"
        time.sleep(POLL_SECONDS)
    return found
