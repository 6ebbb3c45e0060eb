"""The vault's key is changed while everything runs, and nothing that is sealed is lost."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final, LiteralString
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet

from domain.ids import Prefix, decode
from infrastructure.clock import RandomIds
from infrastructure.store_secrets import StoreSecrets
from infrastructure.stored_cards import StoredCards
from infrastructure.vault import FernetVault, new_key
from infrastructure.vault_rotation import SEALED, Rotation
from infrastructure.webhooks.endpoints import WebhookEndpoints
from scripts.cli import main
from tests.api.an_api import GOOD_CARD, Api, Caller, an_api, json_of
from tests.builders import FULL_AMOUNTS, SMALL_VISA, VISA, a_small_card
from tests.fakes import FakeBank, Misfortune, SteppableClock

OLD, NEW = new_key(), new_key()
METHODS = 7
# Of the connections of a rotation: two for the secrets, one to read the cards, and then one to write.
READ_AND_NOT_WRITTEN: Final = 3
CHANGE: LiteralString = (
    "UPDATE stored_cards SET sealed_number = %(sealed)s WHERE method_id = %(id)s"
)
SEALED_COLUMNS: LiteralString = """
    SELECT table_name || '.' || column_name AS name FROM information_schema.columns
    WHERE table_schema = 'public' AND data_type = 'bytea' AND column_name LIKE 'sealed%'
"""


class Shop:
    """What is sealed under the old key: cards, a call that the bank has not answered, secrets."""

    def __init__(self, api: Api, bank: FakeBank) -> None:
        self.api, self.pool = api, api.services.pool
        self.merchant: Caller = api.merchant()
        body = {"type": "card", "card": GOOD_CARD}
        made = [json_of(self.merchant.post("/v1/payment_methods", body)) for _ in range(METHODS)]
        self.methods = [decode(Prefix.PAYMENT_METHOD, each["id"]) for each in made]
        self.fingerprint = made[0]["card"]["fingerprint"]
        endpoint = {"url": "https://shop.example/hooks", "enabled_events": ["*"]}
        self.endpoint = json_of(self.merchant.post("/v1/webhook_endpoints", endpoint))
        bank.will_suffer(Misfortune.SILENT_BEFORE)
        self.paid = self.merchant.authorize(key="waits")
        assert self.paid.status_code == 202

    def rotation(self, *keys: str) -> Rotation:
        return Rotation(self.pool, keys or (NEW, OLD), batch=3)

    def signs_with(self, *keys: str) -> list[str]:
        """What a worker with these keys signs deliveries with."""
        endpoint_id = decode(Prefix.WEBHOOK_ENDPOINT, self.endpoint["id"])
        endpoints = WebhookEndpoints(self.pool, FernetVault(keys), RandomIds())
        sealed = endpoints.sealed_secrets([endpoint_id])[endpoint_id]
        return [endpoints.unsealed(each, endpoint_id) for each in sealed]

    def card(self, method_id: UUID, *keys: str) -> tuple[str, str | None] | None:
        vault = FernetVault(keys)
        return StoredCards(self.pool, vault, StoreSecrets(self.pool, vault)).find(method_id)


@pytest.fixture
def bank() -> FakeBank:
    return FakeBank(SteppableClock(datetime.now(UTC)), FULL_AMOUNTS)


@pytest.fixture
def shop(database_url: str, bank: FakeBank) -> Iterator[Shop]:
    with an_api(database_url, VAULT_KEYS=OLD) as api, api.asking(bank):
        yield Shop(api, bank)


def command(database_url: str, keys: str, *options: str) -> Result:
    environ = {"DATABASE_URL": database_url, "VAULT_KEYS": keys}
    return CliRunner(env=environ).invoke(main, ["vault", "rotate", *options])


def test_everything_that_is_sealed_is_on_the_list(shop: Shop) -> None:
    with shop.pool.connection() as connection:
        rows = connection.execute(SEALED_COLUMNS).fetchall()

    assert {row["name"] for row in rows} == {each.name for each in SEALED}


def test_what_was_sealed_again_needs_the_old_key_no_more(shop: Shop) -> None:
    before = {each.column: each for each in shop.rotation().check()}
    assert shop.signs_with(NEW, OLD) == [shop.endpoint["secret"]]

    done = {each.column: each for each in shop.rotation().rotate()}

    assert all(each.old == each.again == before[each.column].old > 0 for each in done.values())
    assert before["stored_cards.sealed_number"].old == METHODS
    assert {shop.card(each, NEW) for each in shop.methods} == {(VISA, "123")}
    again = StoreSecrets(shop.pool, FernetVault((NEW,)))
    assert again.mark("card fingerprints", VISA)[:16] == shop.fingerprint
    assert shop.signs_with(NEW) == [shop.endpoint["secret"]]
    assert [each.old for each in shop.rotation().check()] == [0] * len(SEALED)
    assert [each.again for each in shop.rotation().rotate()] == [0] * len(SEALED)


def test_a_call_that_waits_goes_on_with_its_card(shop: Shop, bank: FakeBank) -> None:
    shop.rotation().rotate()
    shop.api.services.ledger.vault = FernetVault((NEW,))

    shop.api.worker_has_been_at_it(shop.merchant)

    receipt = shop.merchant.receipt(json_of(shop.paid)["payment_id"])
    assert receipt["status"] == "authorized"
    assert bank.requests[-1].card is not None


def test_a_run_that_was_stopped_goes_on(shop: Shop) -> None:
    class Killed(Exception):
        pass

    looked_at: list[int] = []

    def die(rows: int) -> None:
        looked_at.append(rows)
        if sum(looked_at) > METHODS // 2 + 1:
            raise Killed

    with pytest.raises(Killed):
        shop.rotation().rotate(die)
    half = {each.column: each for each in shop.rotation().check()}["stored_cards.sealed_number"]
    assert {shop.card(each, NEW, OLD) for each in shop.methods} == {(VISA, "123")}

    rest = {each.column: each for each in shop.rotation().rotate()}["stored_cards.sealed_number"]

    assert 0 < half.old < METHODS
    assert (rest.current, rest.again) == (METHODS - half.old, half.old)


class PoolWithOthers:
    """Somebody else is always a little faster: `others` are before each connection."""

    def __init__(self, pool: Any, others: Callable[[], None]) -> None:
        self._pool, self._others = pool, others

    def connection(self) -> Any:
        self._others()
        return self._pool.connection()


def test_what_is_changed_or_erased_meanwhile_is_left_to_whoever_did_it(shop: Shop) -> None:
    erased, changed = shop.methods[:2]
    anew = shop.api.services.cards.sealed(changed, a_small_card()).sealed_number

    def others() -> None:
        if next(times) == READ_AND_NOT_WRITTEN:
            shop.api.execute("DELETE FROM stored_cards WHERE method_id = %(id)s", id=erased)
            shop.api.execute(CHANGE, sealed=anew, id=changed)

    times = count()
    pool: Any = PoolWithOthers(shop.pool, others)
    Rotation(pool, (NEW, OLD)).rotate()

    assert next(times) > READ_AND_NOT_WRITTEN
    assert shop.card(erased, NEW, OLD) is None
    found = shop.card(changed, NEW, OLD)
    assert found is not None
    assert found[0] == SMALL_VISA


def test_the_command_says_when_the_old_key_may_be_dropped(shop: Shop, database_url: str) -> None:
    keys = f"{NEW},{OLD}"
    before = command(database_url, keys, "--check", "--json")
    rotated = command(database_url, keys)
    after = command(database_url, keys, "--check", "--json")
    shop.api.execute("UPDATE idempotency_keys SET claimed_at = claimed_at - interval '25 hours'")
    a_day_later = command(database_url, keys, "--check")

    assert before.exit_code == 1
    report = json.loads(before.stdout)
    assert {each["column"] for each in report["columns"]} == {each.name for each in SEALED}
    assert not report["old_keys_may_be_dropped"]
    assert rotated.exit_code == 0
    assert "keep the old ones until" in rotated.stdout
    report = json.loads(after.stdout)
    assert (after.exit_code, report["requests"]) == (0, METHODS + 2)
    assert "may be dropped" in a_day_later.stdout


def test_what_no_key_opens_is_said_and_left_alone(shop: Shop, database_url: str) -> None:
    stranger = Fernet.generate_key().decode()

    result = command(database_url, stranger)

    assert result.exit_code == 1
    assert "none of VAULT_KEYS" in result.stdout
    assert shop.card(shop.methods[0], OLD) == (VISA, "123")
