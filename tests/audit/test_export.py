"""Exports: what is in a bundle proves itself to whoever has nothing else, and its books are ours."""

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, LiteralString
from urllib.parse import urlsplit

import duckdb
import pytest
from beancount import loader
from beancount.core import realization
from click.testing import CliRunner
from psycopg.types.json import Jsonb

from domain.customer import Customer
from domain.ids import Prefix, encode
from domain.money import Money, in_major_units
from domain.payment import Payment
from infrastructure.audit import notes
from infrastructure.checkpoint_keys import key_kept_in, new_signing_key, signing_keys
from infrastructure.event_store import ShardedRecorder
from infrastructure.shards import shard_of
from projections.registry import FOLLOWING
from scripts import verify_bundle
from scripts.cli import main
from tests.audit.a_sealed_log import audit_settings
from tests.audit.tamperings import World
from tests.builders import NOON, Story, a_payment, a_tenant, a_transfer, an_id
from tests.conftest import Databases
from tests.infrastructure.projections.a_log import append, connect, follow, follower_of, mapper
from tests.patience import patient_pool

KEEP_PERSON: Final[LiteralString] = """
    INSERT INTO personal_data (shard, owner, merchant_id, mode, document)
    VALUES (%(shard)s, %(owner)s, 'mer_ficmart', 'test', %(document)s)
"""
VERIFIER: Final = Path(verify_bundle.__file__)


@pytest.fixture(scope="module")
def world(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once, since exports change nothing: payments in currencies of two, no and three decimals, and two customers, of whom one
    was forgotten."""
    with databases.clone() as url:
        settings = audit_settings(tmp_path_factory.mktemp("world"))
        kept_one, forgotten = a_customer(9101), a_customer(9102)
        forgotten.delete(at=NOON + timedelta(hours=1))
        payments = some_payments(encode(Prefix.CUSTOMER, kept_one.id))
        world = World(url=url, settings=settings, payments=payments, kept="")
        with patient_pool(url, size=2) as pool:
            append(pool, *payments[:2])
            kept = world.seal()
            append(pool, *payments[2:])
            for customer in (kept_one, forgotten):
                history: list[Any] = customer.history
                stored = [mapper.to_stored_event(event) for event in history]
                ShardedRecorder(pool).insert_events(stored, history=history)
        person = {"name": "Ada Lovelace"}
        shard = shard_of(kept_one.id)
        world.do(KEEP_PERSON, shard=shard, owner=kept_one.id, document=Jsonb(person))
        world.seal()
        with connect(url) as connection:
            for model in FOLLOWING:
                follow(connection, follower_of(connection, model.name))
        yield replace(world, kept=kept)


def a_customer(number: int) -> Customer:
    return Customer.create(customer_id=an_id(number), tenant=a_tenant(), metadata={}, at=NOON)


def some_payments(customer: str) -> list[Payment]:
    def of(number: int, **fields: Any) -> Story:
        at = NOON + timedelta(days=number)
        payment = a_payment(payment_id=an_id(9110 + number), order_id=None, at=at, **fields)
        return Story(payment, at=at)

    return [
        of(0).authorized().captured().payment,
        of(1, money=Money(5000, "JPY")).authorized().captured(3000).payment,
        of(2, money=Money(5001, "KWD"), customer_id=customer).authorized().payment,
        of(3, customer_id=customer).authorized().captured().refunded(1).payment,
        of(4, tenant=a_tenant("mer_other")).declined().payment,
        of(5).authorized().voided().payment,
        Story(a_transfer(payment_id=an_id(9120), order_id=None)).transferred().payment,
    ]


def exported(world: World, out: Path, *options: str) -> dict[str, Any]:
    result = run(world, "export", "--out", str(out), "--json", *options)
    assert result.exit_code == 0, result.output
    manifest: dict[str, Any] = json.loads(result.stdout)
    return manifest


def run(world: World, *command: str) -> Any:
    environ = {
        "DATABASE_URL": world.url,
        "CHECKPOINT_KEY": key_kept_in(world.settings.data_dir),
        "CHECKPOINT_ORIGIN": world.settings.checkpoint_origin,
        "DATA_DIR": str(world.settings.data_dir),
    }
    return CliRunner().invoke(main, list(command), env=environ)


def key_file(world: World, folder: Path) -> Path:
    path = folder / "trusted.txt"
    (key,) = signing_keys(key_kept_in(world.settings.data_dir))
    path.write_text(key.verifier.text + "\n")
    return path


def kept_file(world: World, folder: Path) -> Path:
    path = folder / "kept.txt"
    path.write_text(world.kept)
    return path


# --- bundles ------------------------------------------------------------------------------------


def test_a_bundle_verifies_on_a_machine_that_has_nothing_of_ours(
    world: World, tmp_path: Path
) -> None:
    out, elsewhere = tmp_path / "bundle", tmp_path / "elsewhere"
    manifest = exported(world, out)
    elsewhere.mkdir()
    verifier = Path(shutil.copy(VERIFIER, elsewhere))
    given = ["--key", str(key_file(world, elsewhere)), "--checkpoint"]
    command = [sys.executable, "-I", str(verifier), str(out), *given]

    done = subprocess.run(
        [*command, str(kept_file(world, elsewhere))],
        cwd=elsewhere,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "The bundle verifies."), done
    assert "the log goes on from the checkpoint that you kept" in done.stdout
    assert manifest["events"] == sum(len(each.history) for each in world.payments) + 3
    assert manifest["postings"]["JPY"] == {
        "captured": 3000,
        "cardholder": -3000,
        "disputed": 0,
        "held": 0,
        "refunded": 0,
    }


@pytest.mark.parametrize("option", ["payment", "customer", "time"])
def test_a_part_of_the_log_verifies_by_itself(world: World, tmp_path: Path, option: str) -> None:
    out, payment = tmp_path / "bundle", world.payments[3]
    options = {
        "payment": ["--payment", encode(Prefix.PAYMENT, payment.id)],
        "customer": ["--customer", str(payment.customer_id)],
        "time": ["--from", "2026-11-22T12:00:02Z", "--to", "2026-11-24"],
    }
    events = {"payment": 6, "customer": 2 + 6 + 1, "time": 6}

    kept = kept_file(world, tmp_path)
    manifest = exported(world, out, *options[option], "--checkpoint", str(kept))

    assert manifest["events"] == events[option]
    given = ["--key", str(key_file(world, tmp_path)), "--checkpoint", str(kept)]
    assert verify_bundle.main([str(out), *given]) == 0


def test_who_was_forgotten_shows_as_erased_and_everything_verifies(
    world: World, tmp_path: Path
) -> None:
    out, told = tmp_path / "bundle", tmp_path / "told"
    exported(world, out)
    exported(world, told, "--with-personal-data")

    people = [json.loads(line) for line in (out / "people.jsonl").read_text().splitlines()]

    assert Counter(each["personal_data"] for each in people) == {"kept": 1, "erased": 1}
    assert "Ada Lovelace" not in "".join(path.read_text() for path in out.iterdir())
    assert "Ada Lovelace" in (told / "people.jsonl").read_text()
    assert [verify_bundle.main([str(each)]) for each in (out, told)] == [0, 0]


def edit_an_event(out: Path) -> None:
    edit(out / "events.jsonl", '\\"amount_minor\\":5000', '\\"amount_minor\\":4000')


def drop_an_event(out: Path) -> None:
    for name in ("events.jsonl", "inclusion.jsonl"):
        lines = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join(lines[:3] + lines[4:]))


def swap_two_events(out: Path) -> None:
    for name in ("events.jsonl", "inclusion.jsonl"):
        lines = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join([lines[1], lines[0], *lines[2:]]))


def edit_a_proof(out: Path) -> None:
    path = out / "inclusion.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["hashes"] = rows[1]["hashes"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def edit_a_posting(out: Path) -> None:
    edit(out / "postings.jsonl", '"captured":5000', '"captured":5001')


def balance_an_edited_posting(out: Path) -> None:
    edit(out / "postings.jsonl", '"held":5000,"captured":0', '"held":4000,"captured":1000')


def edit_a_checkpoint(out: Path) -> None:
    path = out / "checkpoints.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["note"], rows[0]["root"] = None, rows[1]["root"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def post_what_nothing_moved(out: Path) -> None:
    """An event that only asks is said to have moved something, and back again."""
    path = out / "postings.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    asked = next(row for row in rows if row["topic"] == "payment.captured")
    more = {"version": asked["version"] - 1, "topic": "payment.capture_requested"}
    rows.append({**asked, **more, "amounts": {"held": 1, "cardholder": -1}})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def post_to_another_merchant(out: Path) -> None:
    edit(out / "postings.jsonl", '"merchant_id":"mer_ficmart"', '"merchant_id":"mer_other"')


def say_more_than_was_sealed(out: Path) -> None:
    """In a field that nobody hashes."""
    edit(out / "events.jsonl", '{"position":0,', '{"position":0,"note":"approved",')


def say_a_field_twice(out: Path) -> None:
    """Readers differ in which one they take."""
    edit(out / "events.jsonl", '{"position":0,', '{"position":0,"topic":"payment.voided",')


def double_the_last_event(out: Path) -> None:
    for name in ("events.jsonl", "inclusion.jsonl"):
        lines = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join([*lines, lines[-1]]))


def drop_the_last_event(out: Path) -> None:
    for name in ("events.jsonl", "inclusion.jsonl"):
        lines = (out / name).read_text().splitlines(keepends=True)
        (out / name).write_text("".join(lines[:-1]))


def write_a_number_that_is_none(out: Path) -> None:
    edit(out / "inclusion.jsonl", '"position":0', '"position":NaN')


def write_a_number_without_an_end(out: Path) -> None:
    edit(out / "inclusion.jsonl", '"position":0', f'"position":{"9" * 5_000}')


def nest_without_an_end(out: Path) -> None:
    edit(out / "inclusion.jsonl", '"hashes":[', '"hashes":[' + "[" * 100_000)


def write_no_utf8(out: Path) -> None:
    path = out / "events.jsonl"
    path.write_bytes(path.read_bytes().replace(b"mer_ficmart", b"mer_\xff\xfeart", 1))


def put_an_empty_line(out: Path) -> None:
    edit(out / "events.jsonl", "\n", "\n\n")


def add_a_file(out: Path) -> None:
    (out / "more.txt").write_text("more")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


TAMPERINGS: Final[list[Callable[[Path], None]]] = [
    edit_an_event,
    drop_an_event,
    swap_two_events,
    edit_a_proof,
    edit_a_posting,
    balance_an_edited_posting,
    edit_a_checkpoint,
    post_what_nothing_moved,
    post_to_another_merchant,
    say_more_than_was_sealed,
    say_a_field_twice,
    double_the_last_event,
    drop_the_last_event,
    write_a_number_that_is_none,
    write_a_number_without_an_end,
    nest_without_an_end,
    write_no_utf8,
    put_an_empty_line,
]


def lead_out_of_the_folder(out: Path) -> None:
    """To the same bytes, for now."""
    elsewhere = out.parent / "elsewhere.jsonl"
    (out / "postings.jsonl").rename(elsewhere)
    (out / "postings.jsonl").symlink_to(elsewhere)


def be_a_pipe(out: Path) -> None:
    (out / "postings.jsonl").unlink()
    os.mkfifo(out / "postings.jsonl")


def end_without_a_line_feed(out: Path) -> None:
    path = out / "events.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))


def take_another_head(out: Path) -> None:
    """An earlier one, which is signed as well."""
    rows = [json.loads(line) for line in (out / "checkpoints.jsonl").read_text().splitlines()]
    (out / "checkpoint.txt").write_text(rows[0]["note"])


def name_a_file_elsewhere(out: Path) -> None:
    edit(out / "manifest.json", '"events.jsonl"', '"../events.jsonl"')


def empty_the_note(out: Path) -> None:
    (out / "manifest.note").write_text("")


def make_the_manifest_a_list(out: Path) -> None:
    (out / "manifest.json").write_text("[]")


@pytest.fixture(scope="module")
def bundle(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "out"
    exported(world, out)
    return out


ONLY_IN_THE_FOLDER: Final[list[Callable[[Path], None]]] = [
    add_a_file,
    lead_out_of_the_folder,
    be_a_pipe,
    end_without_a_line_feed,
    take_another_head,
    name_a_file_elsewhere,
    empty_the_note,
    make_the_manifest_a_list,
]


@pytest.mark.parametrize("tamper", [*TAMPERINGS, *ONLY_IN_THE_FOLDER])
def test_a_bundle_that_was_changed_does_not_verify(
    bundle: Path, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "out"))

    tamper(out)

    assert verify_bundle.main([str(out)]) == 1


def test_every_line_of_every_file_counts(bundle: Path, tmp_path: Path) -> None:
    """Gone, there twice, changed, or in another order."""
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    verdicts = set()
    for path in sorted(out.iterdir()):
        text = path.read_text()
        lines = text.splitlines(keepends=True)
        others = {"".join(reversed(lines))}
        for at in {0, len(lines) // 2, len(lines) - 1}:
            for line in ("", 2 * lines[at], "x" + lines[at]):
                others.add("".join([*lines[:at], line, *lines[at + 1 :]]))

        for other in others - {text}:
            path.write_text(other)
            verdicts.add((verify_bundle.main([str(out)]), path.name))
        path.write_text(text)

    assert {verdict for verdict, _ in verdicts} == {1}
    assert len(verdicts) == len(list(out.iterdir())) == 10
    assert verify_bundle.main([str(out)]) == 0


@pytest.mark.parametrize("tamper", TAMPERINGS)
def test_even_a_manifest_that_we_signed_hides_nothing(
    world: World, bundle: Path, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    """Whoever has the key can sign a manifest of changed files; the proofs say what they were."""
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    tamper(out)
    sign_again(out, key_kept_in(world.settings.data_dir))

    assert verify_bundle.main([str(out)]) == 1


def test_what_does_not_hold_is_not_said_to_hold(
    world: World, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    edit_an_event(out)
    sign_again(out, key_kept_in(world.settings.data_dir))

    assert verify_bundle.main([str(out)]) == 1
    said = capsys.readouterr().out
    assert "is not the event that was sealed there" in said
    assert "each proven" not in said
    assert "files are as they were written" in said


def test_a_bundle_by_another_key_verifies_by_its_own_and_by_no_other(
    world: World, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(bundle, tmp_path / "out"))
    sign_again(out, new_signing_key())

    assert verify_bundle.main([str(out), "--key", str(key_file(world, tmp_path))]) == 1
    assert "no trusted key has signed this" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "vkey first_used\n"])
def test_a_file_without_keys_says_nothing_of_the_bundle(
    bundle: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "trusted.txt"
    wrong.write_text(text)

    with pytest.raises(SystemExit) as ended:
        verify_bundle.main([str(bundle), "--key", str(wrong)])

    said = capsys.readouterr()
    assert ended.value.code == 2
    assert f"--key {wrong}: " in said.err
    assert said.out == ""


def test_one_key_verifies_what_the_next_signed_too_and_that_what_it_signed(
    databases: Databases, world: World, tmp_path: Path
) -> None:
    old, new = key_kept_in(world.settings.data_dir), new_signing_key("next")
    name = urlsplit(world.url).path.strip("/")
    with replace(databases, template=name).clone() as url:
        for keys in (f"{new},{old}", new):
            with patient_pool(url, size=1) as pool:
                append(pool, Story(a_payment(order_id=None)).authorized().payment)
            settings = replace(world.settings, checkpoint_key=keys)
            World(url=url, settings=settings, payments=(), kept="").seal()
        environ = {"DATABASE_URL": url, "CHECKPOINT_KEY": new}
        out = tmp_path / "out"
        CliRunner().invoke(main, ["export", "--out", str(out)], env=environ)

    verdicts = []
    for each in (old, new, new_signing_key("stranger")):
        trusted = tmp_path / "trusted.txt"
        trusted.write_text(signing_keys(each)[0].verifier.text)
        verdicts.append(verify_bundle.main([str(out), "--key", str(trusted)]))

    assert verdicts == [0, 0, 1]


def test_a_checkpoint_of_another_history_is_told_apart(
    world: World, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = signing_keys(key_kept_in(world.settings.data_dir))
    kept = tmp_path / "kept.txt"
    text = f"{world.settings.checkpoint_origin}\n3\n{'A' * 43}=\n"
    kept.write_text(notes.signed(text, keys).whole)

    assert verify_bundle.main([str(bundle), "--checkpoint", str(kept)]) == 1
    assert "it was rewritten" in capsys.readouterr().out
    assert (
        run(world, "export", "--out", str(tmp_path / "out"), "--checkpoint", str(kept)).exit_code
        == 1
    )
    assert not (tmp_path / "out").exists()


def sign_again(out: Path, key: str) -> None:
    """As whoever has a key could."""
    manifest = json.loads((out / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (out / name).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"][name] = {"bytes": len(content), "sha256": digest}
    manifest["events"] = len((out / "events.jsonl").read_bytes().splitlines())
    text = json.dumps(manifest)
    (out / "manifest.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    note = notes.signed(f"counterfoil audit bundle v1\n{digest}\n", signing_keys(key))
    (out / "manifest.note").write_text(note.whole)


def test_an_export_is_whole_or_not_there(world: World, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "note.txt").write_text("mine")

    refused = run(world, "export", "--out", str(taken))
    unknown = run(world, "export", "--out", str(tmp_path / "a"), "--customer", "nobody")
    no_time = run(world, "export", "--out", str(tmp_path / "b"), "--from", "yesterday")

    assert (refused.exit_code, unknown.exit_code, no_time.exit_code) == (2, 1, 2)
    assert "not an empty folder" in refused.stderr
    assert "--from must be a day or a time" in no_time.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]
    assert sorted(path.name for path in taken.iterdir()) == ["note.txt"]


# --- books --------------------------------------------------------------------------------------

BALANCES: Final[LiteralString] = """
    SELECT merchant_id, currency, sum(held)::bigint AS held, sum(captured)::bigint AS captured,
           sum(refunded)::bigint AS refunded, sum(cardholder)::bigint AS cardholder
    FROM balances WHERE customer_id = '' GROUP BY merchant_id, currency
"""


def our_balances(world: World) -> dict[tuple[str, str], str]:
    """By account and currency, in major units; what is nothing is left out."""
    found = {}
    for row in world.do(BALANCES):
        for account in ("held", "captured", "refunded", "cardholder"):
            if row[account]:
                amount = in_major_units(row[account], row["currency"])
                found[account, row["currency"]] = amount
    return found


def test_hledger_accepts_the_journal_and_comes_to_our_balances(
    world: World, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    hledger = shutil.which("hledger")
    if hledger is None and not pytestconfig.getoption("--proofs"):
        pytest.skip("there is no hledger on this machine")
    assert hledger is not None
    out = tmp_path / "out"
    exported(world, out, "--journal", "hledger")
    journal = str(out / "journal.hledger")

    subprocess.run([hledger, "check", "--strict", "-f", journal], check=True)
    asked = [hledger, "balance", "-f", journal, "--flat", "--no-total", "--layout=bare"]
    told = subprocess.run([*asked, "-O", "csv"], check=True, capture_output=True, text=True)

    rows = csv.DictReader(told.stdout.splitlines())
    found = {
        (row["account"].split(":")[1].lower(), row["commodity"]): row["balance"]
        for row in rows
        if row["commodity"]
    }
    assert found == our_balances(world)


def test_beancount_accepts_the_journal_and_comes_to_our_balances(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    exported(world, out, "--journal", "beancount")
    journal = out / "journal.beancount"

    checked = subprocess.run(
        [sys.executable, "-m", "beancount.scripts.check", str(journal)],
        capture_output=True,
        text=True,
        check=False,
    )
    entries, errors, _ = loader.load_file(str(journal))

    assert (checked.returncode, checked.stdout, checked.stderr, errors) == (0, "", "", [])
    found = {
        (account.account.split(":")[1].lower(), position.units.currency): str(position.units.number)
        for account in realized(entries)
        for position in account.balance
    }
    assert found == our_balances(world)


def realized(entries: Any) -> list[Any]:
    """Every account with what is in it, as beancount adds it up."""
    children: Any = realization.iter_children
    tree: Any = realization.realize
    return list(children(tree(entries)))


def test_a_journal_that_was_changed_is_refused_by_its_own_assertions(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    exported(world, out, "--journal", "beancount")
    journal = out / "journal.beancount"
    text = journal.read_text()
    begin = text.index("payment.voided")
    journal.write_text(text[:begin] + text[begin:].replace("50.00 USD", "40.00 USD", 2))

    _, errors, _ = loader.load_file(str(journal))

    assert errors


# --- tables -------------------------------------------------------------------------------------


def test_duckdb_reads_the_tables_and_their_replay_comes_to_our_balances(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    manifest = exported(world, out, "--parquet")
    events = f"{out}/parquet/events/*/*/*.parquet"

    with duckdb.connect() as connection:
        query = f"SELECT count(*), count(DISTINCT aggregate) FROM '{events}'"
        counted = connection.execute(query).fetchone()
    replayed = run(world, "replay", str(out), "--workers", "2", "--json")

    assert counted == (manifest["events"], len(world.payments) + 2)
    told = json.loads(replayed.stdout)
    assert (replayed.exit_code, told["ok"]) == (0, True)
    assert told["replayed"] == manifest["postings"]
    assert verify_bundle.main([str(out)]) == 0


def test_tables_of_which_a_part_is_gone_do_not_come_to_our_balances(
    world: World, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    exported(world, out, "--parquet")
    partitions = sorted((out / "parquet" / "events").glob("*/*"))
    for each in partitions[: len(partitions) // 2 + 1]:
        shutil.rmtree(each)

    replayed = run(world, "replay", str(out), "--workers", "1")

    assert replayed.exit_code == 1
    assert "NOT the balances" in replayed.stdout
