"""Verifying: silent about what is as it was recorded, and exact about what is not."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from domain.bank import Unknown
from domain.ids import Prefix, encode
from domain.payment import Payment
from infrastructure.audit.duties import Sealing, keys_of
from infrastructure.checkpoint_keys import key_kept_in, new_signing_key, signing_keys
from infrastructure.clock import SystemClock
from infrastructure.verification.findings import Kind
from infrastructure.verification.run import Verified, Wanted, verify
from infrastructure.verification.sealed import Outside
from projections.registry import FOLLOWING
from scripts.cli import main
from tests.api.an_api import GOOD_CARD, an_api, json_of
from tests.audit import verify_table
from tests.audit.a_backup import Backup
from tests.audit.tamperings import SHARD, TAMPERINGS, Tampering, World, a_world
from tests.builders import Story, a_payment, an_id
from tests.conftest import Databases
from tests.fakes import FakeBank, SteppableClock
from tests.infrastructure.projections.a_log import append, connect, follow, follower_of
from tests.patience import patient_pool


@pytest.fixture(scope="module")
def template(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once."""
    with databases.clone() as url:
        yield a_world(url, tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def backup(template: World) -> Backup:
    return Backup(template.url)


@pytest.fixture
def world(template: World, backup: Backup) -> Iterator[World]:
    """As it was made, whatever was done to it before."""
    yield template
    backup.restore()


@pytest.fixture
def own_world(template: World, databases: Databases) -> Iterator[World]:
    """One of whose tables may be changed themselves."""
    name = urlsplit(template.url).path.strip("/")
    with replace(databases, template=name).clone() as url:
        yield replace(template, url=url)


def verified(world: World, *outside: str, is_thorough: bool = False) -> Verified:
    wanted = Wanted(
        database_url=world.url,
        keys=[key.verifier for key in keys_of(world.settings)],
        outside=[Outside(name="kept.txt", note=note) for note in outside],
        is_thorough=is_thorough,
    )
    return verify(wanted, lambda *_: None, workers=1)


def test_nothing_is_found_where_nothing_was_done(world: World) -> None:
    found = verified(world, world.kept, is_thorough=True)

    assert [finding.line for finding in found.findings] == []
    assert (found.events, found.sealed, found.aggregates, found.checkpoints) == (18, 18, 5, 2)
    assert sum(found.postings["USD"].values()) == 0
    assert found.postings["USD"]["captured"] == 10_000


@pytest.mark.parametrize("tampering", TAMPERINGS, ids=lambda each: each.name.replace(" ", "-"))
def test_what_was_tampered_with_is_found_where_it_is(world: World, tampering: Tampering) -> None:
    tampering.tamper(world)

    alone = verified(world)
    found = verified(world, world.kept) if tampering.needs_outside else alone

    assert (alone.count == 0) == tampering.needs_outside, [each.line for each in alone.findings]
    places = [each for each in found.findings if each.kind is tampering.finds]
    told = [{name: getattr(each, name) for name in tampering.where} for each in places]
    assert tampering.where in told, [each.line for each in found.findings]


def test_a_row_of_what_only_counts_is_found_when_it_is_asked_for(world: World) -> None:
    world.do("UPDATE customer_totals SET payments = payments + 1 WHERE shard = %(s)s", s=SHARD)

    found = verified(world, is_thorough=True)

    assert verified(world).count == 0
    assert [(each.kind, each.table) for each in found.findings] == [
        (Kind.ROW_DIFFERS, "customer_totals")
    ]


def test_who_trusts_one_key_trusts_those_that_it_names_and_no_others(world: World) -> None:
    (old,) = keys_of(world.settings)
    new, stranger = new_signing_key("next"), new_signing_key("stranger")
    for keys in (f"{new},{key_kept_in(world.settings.data_dir)}", new):
        settings = replace(world.settings, checkpoint_key=keys)
        with patient_pool(world.url, size=1) as pool:
            append(pool, Story(a_payment(order_id=None)).authorized().payment)
            Sealing(pool, settings, SystemClock()).seal_and_sign()
    verifiers = [signing_keys(each)[0].verifier for each in (new, stranger)]

    found = [
        {finding.kind for finding in verify(wanted, lambda *_: None, workers=1).findings}
        for key in (old.verifier, *verifiers)
        for wanted in [Wanted(database_url=world.url, keys=[key])]
    ]

    assert found[:2] == [set(), set()]
    assert found[2] == {Kind.CHECKPOINT_FORGED, Kind.CHECKPOINT_KEY_UNKNOWN}


def test_a_table_of_another_shape_is_found_and_the_rest_is_verified(own_world: World) -> None:
    own_world.do("ALTER TABLE audit_runs RENAME COLUMN events TO of_what")
    own_world.do("UPDATE audit_checkpoints SET note = 'x' WHERE number = 2")

    found = {finding.kind for finding in verified(own_world).findings}

    assert found == {Kind.UNREADABLE, Kind.CHECKPOINT_FORGED}


def test_the_command_says_what_is_wrong_and_where_and_ends_with_one(
    world: World, tmp_path: Path
) -> None:
    environ = {
        "DATABASE_URL": world.url,
        "CHECKPOINT_KEY": key_kept_in(world.settings.data_dir),
    }
    kept = tmp_path / "kept.txt"
    kept.write_text(world.kept)
    command = ["verify", "--workers", "1", "--checkpoint", str(kept)]
    before = CliRunner().invoke(main, command, env=environ)
    world.do("UPDATE events SET recorded_at = now() WHERE shard = 8 AND position = 2")

    words = CliRunner().invoke(main, command, env=environ)
    document = CliRunner().invoke(main, [*command, "--json"], env=environ)

    payment_id = encode(Prefix.PAYMENT, world.payments[4].id)
    assert (before.exit_code, before.stdout.splitlines()[-1]) == (0, "nothing is wrong")
    assert (words.exit_code, document.exit_code) == (1, 1)
    assert "time_changed: the time of the event is not" in words.stdout
    told = json.loads(document.stdout)
    first = next(each for each in told["findings"] if each["kind"] == "time_changed")
    assert not told["ok"]
    assert (first["id"], first["version"], first["shard"], first["position"]) == (
        payment_id,
        2,
        8,
        2,
    )


def test_verifying_while_payments_are_made_gives_no_false_alarm(world: World) -> None:
    stopping = threading.Event()
    writers = [
        threading.Thread(target=write_on, args=(world, stopping)),
        threading.Thread(target=seal_on, args=(world, stopping)),
        threading.Thread(target=follow_on, args=(world, stopping)),
    ]
    for writer in writers:
        writer.start()
    try:
        found = [verified(world, world.kept, is_thorough=True) for _ in range(2)]
    finally:
        stopping.set()
        for writer in writers:
            writer.join()

    assert [each.line for run in found for each in run.findings] == []
    assert found[-1].events > 18


def write_on(world: World, stopping: threading.Event) -> None:
    with patient_pool(world.url, size=1) as pool:
        while not stopping.is_set():
            append(pool, *(authorized(shard) for shard in (SHARD, SHARD + 2)))


def authorized(shard: int) -> Payment:
    """Of few shards, each of which is read more than once."""
    return Story(a_payment(payment_id=an_id(shard=shard), order_id=None)).authorized().payment


def seal_on(world: World, stopping: threading.Event) -> None:
    with patient_pool(world.url, size=1) as pool:
        sealing = Sealing(pool, world.settings, SystemClock())
        while not stopping.is_set():
            sealing.seal_and_sign()


def follow_on(world: World, stopping: threading.Event) -> None:
    with connect(world.url) as connection:
        followers = [follower_of(connection, model.name) for model in FOLLOWING]
        while not stopping.is_set():
            for follower in followers:
                follow(connection, follower)


def test_what_merchants_do_leaves_nothing_that_is_wrong(database_url: str, tmp_path: Path) -> None:
    """In every family, with what is still under way and what nobody knows the outcome of."""
    clock = SteppableClock(datetime.now(UTC))
    bank = FakeBank(clock)
    with an_api(database_url, DATA_DIR=str(tmp_path)) as api, api.asking(bank):
        merchant = api.merchant()
        merchant.captured()
        merchant.voided()
        merchant.refunded()
        merchant.declined()
        customer = json_of(merchant.post("/v1/customers", {"email": "ada@example.com"}))
        method = {"type": "card", "card": GOOD_CARD}
        kept = json_of(merchant.post("/v1/payment_methods", method))
        merchant.post(f"/v1/payment_methods/{kept['id']}/attach", {"customer": customer["id"]})
        intent = {"amount": 5000, "currency": "usd", "payment_method": kept["id"], "confirm": True}
        paid = merchant.post("/v1/payment_intents", intent | {"customer": customer["id"]})
        assert paid.status_code == 201, paid.text
        merchant.post(
            "/v1/payment_intents",
            {"amount": 5000, "currency": "usd", "metadata": {"order_id": "o"}},
        )
        bank.will_answer(Unknown(reason="silence", unanswered=True))
        assert merchant.authorize().status_code == 202
        merchant.request("DELETE", f"/v1/customers/{customer['id']}")
        Sealing(api.services.pool, api.services.settings, SystemClock()).seal_and_sign()

        wanted = Wanted(database_url=database_url, is_thorough=True)
        found = verify(wanted, lambda *_: None, workers=1)

    assert [each.line for each in found.findings] == []
    assert found.events > 25


def test_the_table_of_the_documentation_is_what_is_said(template: World) -> None:
    documented = verify_table.DOCUMENT.read_text()

    for tampering in TAMPERINGS:
        assert f"| {tampering.name} |" in documented, "python -m tests.audit.verify_table"
        assert f"`{tampering.finds.value}" in documented
