"""The command line: what programs read of it, and one line for what is wrong."""

import json
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from click.testing import CliRunner, Result
from cryptography.fernet import Fernet
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import PoolTimeout
from werkzeug.test import TestResponse

from api.schemas import OrderOut, ReceiptOut, RefundOut
from domain.bank import Unknown
from infrastructure.checkpoint_keys import check_signing_key
from infrastructure.database import OF_COMMANDS, open_pool
from infrastructure.vault import new_key
from projections.registry import ALL, INLINE
from scripts.cli import METRICS_VARIABLE, main
from scripts.in_doubt import operated
from tests.api.an_api import EMPTY_CARD, Api, Caller, an_api, shaped
from tests.builders import ANY_AMOUNT
from tests.fakes import FakeBank, SteppableClock
from tests.infrastructure.postgres_proxy import PostgresProxy

NO_BANK = "http://127.0.0.1:9"
NO_DATABASE = "postgresql://nobody@127.0.0.1:9/nothing"
READ_ONLY: LiteralString = "ALTER DATABASE {} SET default_transaction_read_only = on"
WRITABLE: LiteralString = "ALTER DATABASE {} RESET default_transaction_read_only"
EVERY_COMMAND: tuple[list[str], ...] = (
    [],
    ["serve"],
    ["work"],
    ["bank"],
    ["migrate"],
    ["keys"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["merchants", "list"],
    ["merchants", "suspend"],
    ["merchants", "resume"],
    ["keygen", "vault"],
    ["keygen", "checkpoint"],
    ["vault", "rotate"],
    ["stuck"],
    ["resolve"],
    ["reconcile"],
    ["projections", "list"],
    ["projections", "rebuild"],
    ["projections", "diff"],
    ["projections", "promote"],
    ["projections", "rollback"],
    ["projections", "retire"],
    ["projections", "pause"],
    ["projections", "resume"],
    ["projections", "quarantine"],
    ["projections", "retry"],
    ["operations"],
    ["verify"],
    ["export"],
    ["replay"],
    ["checkpoint"],
    ["checkpoint", "list"],
    ["checkpoint", "keys"],
    ["checkpoint", "rotate"],
    ["checkpoint", "cosign"],
    ["history"],
)


def run(*arguments: str, **environ: str | None) -> Result:
    own = {"DATABASE_URL": NO_DATABASE, METRICS_VARIABLE: None}  # what a command sets ends with it
    return CliRunner(env={**own, **environ}).invoke(main, arguments)


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def assert_refused(result: Result, status: int, *words: str) -> None:
    """It ended with this status and one line that has these words."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("counterfoil: ")
    assert all(word in line for word in words), line


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    assert done(run(*command, "--help")).startswith("Usage: ")


def test_a_command_waits_where_a_request_is_refused(database_url: str) -> None:
    """For a server that is too busy to take a connection: what it is asked is done once it is not."""
    server = PostgresProxy(database_url)  # it listens, and does not answer yet
    with ThreadPoolExecutor(1) as threads, open_pool(server.url, size=1) as hurried:
        command = threads.submit(run, "keys", "list", "--json", DATABASE_URL=server.url)
        for _ in range(2):  # by the end of the second the command, too, would have been refused
            with pytest.raises(PoolTimeout):
                hurried.getconn()
        with server:
            assert json.loads(done(command.result())) == []


def test_what_operators_do_waits_as_any_other_command(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)

    with operated() as services, services.pool.connection() as connection:
        allowed = connection.execute("SHOW statement_timeout").fetchone()

    assert services.pool.timeout == OF_COMMANDS.connection
    assert allowed == {"statement_timeout": f"{OF_COMMANDS.statement:g}s"}


# --- keys ---------------------------------------------------------------------------------------

SHOWN = {
    "id", "merchant", "mode", "type", "prefix", "scopes", "created", "expires", "revoked", "last_used",
}  # fmt: skip
DEFAULT_SCOPES = [
    "customers:read",
    "customers:write",
    "payments:read",
    "payments:write",
    "webhooks:read",
    "webhooks:write",
]


def test_a_key_is_made_and_shown_once(database_url: str) -> None:
    made = json.loads(
        done(run("keys", "create", "--merchant", "Shop", "--json", DATABASE_URL=database_url))
    )
    (listed,) = json.loads(done(run("keys", "list", "--json", DATABASE_URL=database_url)))

    assert set(made) == SHOWN | {"key"}
    assert made["key"].startswith("sk_test_")
    assert made["scopes"] == DEFAULT_SCOPES
    assert (made["merchant"], made["mode"], made["type"]) == ("Shop", "test", "secret")
    assert {**listed, "key": made["key"], "last_used": made["last_used"]} == made
    assert made["key"] not in json.dumps(listed)


def test_a_key_is_printed_alone_without_json(database_url: str) -> None:
    text = done(run("keys", "create", "--merchant", "Shop", DATABASE_URL=database_url))

    assert text.strip().startswith("sk_test_")
    assert len(text.split()) == 1


def test_a_key_is_made_as_it_is_asked_for(database_url: str) -> None:
    options = ["--mode", "live", "--type", "publishable", "--scope", "payments:read"]
    options += ["--scope", "audit:read", "--expires", "30", "--json"]

    text = done(run("keys", "create", "--merchant", "Shop", *options, DATABASE_URL=database_url))

    made = json.loads(text)
    assert made["key"].startswith("pk_live_")
    assert made["scopes"] == ["audit:read", "payments:read"]
    assert made["expires"] > made["created"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--merchant", " "], ["--merchant"]),
        (["--merchant", "a\nb"], ["--merchant"]),
        (["--merchant", "*"], ["audit:read"]),
        (["--merchant", "*", "--scope", "payments:read"], ["audit:read"]),
    ],
)
def test_a_key_of_nobody_is_refused(
    database_url: str, options: list[str], words: list[str]
) -> None:
    result = run("keys", "create", *options, DATABASE_URL=database_url)

    assert_refused(result, 2, *words)
    assert json.loads(done(run("keys", "list", "--json", DATABASE_URL=database_url))) == []


@pytest.mark.parametrize(
    "options",
    [[], ["--merchant", "a", "--mode", "x"], ["--merchant", "a", "--scope", "x"],
     ["--merchant", "a", "--expires", "0"], ["--merchant", "a", "--type", "x"]],
)  # fmt: skip
def test_a_wrong_option_is_a_2(options: list[str]) -> None:
    assert run("keys", "create", *options).exit_code == 2


def test_an_auditors_key_is_of_every_merchant(database_url: str) -> None:
    options = ["--merchant", "*", "--scope", "audit:read", "--json"]

    made = json.loads(done(run("keys", "create", *options, DATABASE_URL=database_url)))

    assert (made["merchant"], made["scopes"]) == ("*", ["audit:read"])


def test_a_revoked_key_is_good_no_more(served: tuple[Api, Caller], database_url: str) -> None:
    _, merchant = served
    assert merchant.record is not None

    done(run("keys", "revoke", merchant.record.key_id, DATABASE_URL=database_url))

    assert merchant.get("/v1/receipts").status_code == 401
    (listed,) = json.loads(done(run("keys", "list", "--json", DATABASE_URL=database_url)))
    assert listed["revoked"] is not None


def test_a_rotated_key_is_good_beside_the_new_one_for_the_time_that_is_given(
    served: tuple[Api, Caller], database_url: str
) -> None:
    _, merchant = served
    assert merchant.record is not None
    before = merchant.record

    rotate = ["keys", "rotate", before.key_id, "--json"]
    made = json.loads(done(run(*rotate, "--expires-in", "3600", DATABASE_URL=database_url)))

    rows = json.loads(done(run("keys", "list", "--json", DATABASE_URL=database_url)))
    old, new = sorted(rows, key=lambda row: row["id"] != before.key_id)
    left = datetime.fromisoformat(old["expires"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert new["id"] == made["id"]
    alike = ("merchant", "mode", "type", "scopes", "expires")
    assert {name: made[name] for name in alike} == {
        "merchant": before.merchant,
        "mode": "test",
        "type": "secret",
        "scopes": sorted(before.scopes),
        "expires": None,
    }
    anew = Caller(merchant.app, made["key"], None, merchant.merchant)
    for caller in (merchant, anew):
        assert caller.get("/v1/receipts").status_code == 200


def test_a_key_that_is_rotated_without_overlap_is_good_no_more_and_not_rotated_again(
    served: tuple[Api, Caller], database_url: str
) -> None:
    _, merchant = served
    assert merchant.record is not None
    rotate = ["keys", "rotate", merchant.record.key_id, "--expires-in", "0"]

    key = done(run(*rotate, DATABASE_URL=database_url)).strip()

    assert merchant.get("/v1/receipts").status_code == 401
    anew = Caller(merchant.app, key, None, merchant.merchant)
    assert anew.get("/v1/receipts").status_code == 200
    assert_refused(run(*rotate, DATABASE_URL=database_url), 1, merchant.record.key_id)


def test_a_key_that_is_not_there_is_not_revoked(database_url: str) -> None:
    result = run("keys", "revoke", "key_nobodys", DATABASE_URL=database_url)

    assert_refused(result, 1, "key_nobodys")


# --- merchants ----------------------------------------------------------------------------------


def test_a_suspended_merchant_is_shut_out_until_it_is_resumed(
    served: tuple[Api, Caller], database_url: str
) -> None:
    api, merchant = served
    name = merchant.merchant

    done(run("merchants", "suspend", name, DATABASE_URL=database_url))
    (listed,) = json.loads(done(run("merchants", "list", "--json", DATABASE_URL=database_url)))
    suspended = merchant.get("/v1/receipts").status_code
    done(run("merchants", "resume", name, DATABASE_URL=database_url))
    resumed = api.merchant(name).get("/v1/receipts").status_code

    assert (listed["name"], suspended, resumed) == (name, 403, 200)
    assert listed["suspended"] is not None
    (listed,) = json.loads(done(run("merchants", "list", "--json", DATABASE_URL=database_url)))
    assert listed["suspended"] is None


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_a_merchant_that_is_not_there_is_told(database_url: str, command: str) -> None:
    assert_refused(run("merchants", command, "Nobody", DATABASE_URL=database_url), 1, "Nobody")


def test_without_json_there_is_a_table(database_url: str) -> None:
    empty = done(run("keys", "list", DATABASE_URL=database_url))
    run("keys", "create", "--merchant", "Shop", DATABASE_URL=database_url)

    table = done(run("keys", "list", DATABASE_URL=database_url)).splitlines()

    assert empty == "none\n"
    assert len(table) == 2
    assert table[0].split()[:3] == ["id", "merchant", "mode"]


# --- secrets ------------------------------------------------------------------------------------


def test_a_vault_key_is_one_alone() -> None:
    first, second = done(run("keygen", "vault")), done(run("keygen", "vault"))

    assert first != second
    assert Fernet(first.strip()).decrypt(Fernet(first.strip()).encrypt(b"x")) == b"x"
    assert len(first.split()) == 1


# --- read models --------------------------------------------------------------------------------


@pytest.fixture
def served(database_url: str) -> Iterator[tuple[Api, Caller]]:
    """An application on the test's own database, a bank that takes parts, and one merchant."""
    with an_api(database_url) as api, api.asking(FakeBank(SteppableClock(), ANY_AMOUNT)):
        yield api, api.merchant()


def test_the_read_models_are_listed_and_none_is_behind(database_url: str) -> None:
    listed = json.loads(done(run("projections", "list", "--json", DATABASE_URL=database_url)))

    assert {one["name"]: one["inline"] for one in listed} == {
        model.name: model in INLINE for model in ALL
    }
    for one in listed:
        assert (one["version"], one["status"]) == (1, "live")
        assert (one["lag_events"], one["lag_seconds"], one["quarantined"]) == (0, 0.0, 0)


ROWS: dict[str, LiteralString] = {
    "receipts": "SELECT *, document::text AS bytes FROM receipts ORDER BY payment_id",
    "refunds": "SELECT *, document::text AS bytes FROM refunds ORDER BY refund_id",
}
DAMAGE: dict[str, tuple[LiteralString, ...]] = {
    "receipts": (
        """
        UPDATE receipts SET status = 'expired', order_id = 'x', needs_review = NOT needs_review,
               document = jsonb_set(document, '{amount_captured}', '99')
        """,
        "DELETE FROM receipts WHERE payment_id = (SELECT payment_id FROM receipts LIMIT 1)",
        """
        INSERT INTO receipts
        SELECT (jsonb_populate_record(r, jsonb_build_object('payment_id', gen_random_uuid()))).*
        FROM receipts r LIMIT 1
        """,
    ),
    "refunds": (
        "UPDATE refunds SET status = 'failed', document = jsonb_set(document, '{amount}', '99')",
        "DELETE FROM refunds WHERE refund_id = (SELECT refund_id FROM refunds LIMIT 1)",
        """
        INSERT INTO refunds
        SELECT (jsonb_populate_record(r, jsonb_build_object(
            'refund_id', gen_random_uuid(), 'document', jsonb_set(r.document, '{id}', '"rfnd_x"')
        ))).* FROM refunds r LIMIT 1
        """,
    ),
}


@pytest.mark.parametrize("name", ["receipts", "refunds"])
def test_a_rebuild_mends_what_was_damaged_byte_for_byte(
    served: tuple[Api, Caller], database_url: str, name: str
) -> None:
    _, merchant = served
    some_payments(merchant)
    before = rows(database_url, name)
    with psycopg.connect(database_url) as connection:
        for statement in DAMAGE[name]:
            connection.execute(statement)
    damaged = rows(database_url, name)

    built = done(run("projections", "rebuild", name, DATABASE_URL=database_url))
    still = rows(database_url, name)
    promoted = done(run("projections", "promote", name, DATABASE_URL=database_url))

    assert still == damaged != before
    assert rows(database_url, name) == before
    assert built.startswith(f"{name}: version 2 is built from ")
    assert promoted == f"{name}: version 2 is live\n"


def some_payments(merchant: Caller) -> None:
    """Of every kind, with refunds of either spelling."""
    merchant.voided()
    merchant.authorize(card=EMPTY_CARD)
    merchant.authorized(metadata={"é": "ü", "n": 1.5, "vip": True})
    payment_id = merchant.captured()["payment_id"]
    shaped(RefundOut, merchant.refund(payment_id, amount=100), 201)
    charge = payment_id.replace("pay_", "ch_")
    shaped(RefundOut, merchant.post("/v1/refunds", {"charge": charge}), 201)


def rows(database_url: str, name: str) -> list[dict[str, Any]]:
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        return connection.execute(ROWS[name]).fetchall()


def test_a_rebuild_of_what_is_right_changes_nothing(
    served: tuple[Api, Caller], database_url: str
) -> None:
    _, merchant = served
    some_payments(merchant)
    before = {name: rows(database_url, name) for name in ROWS}

    for name in ROWS:
        done(run("projections", "rebuild", name, "--promote", DATABASE_URL=database_url))

    assert {name: rows(database_url, name) for name in ROWS} == before


def test_a_read_model_that_is_not_there_is_not_rebuilt() -> None:
    assert run("projections", "rebuild", "nonsense").exit_code == 2


# --- the schema ---------------------------------------------------------------------------------


def test_a_schema_is_made_once_and_then_it_is_up_to_date(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    refused = run("keys", "list", DATABASE_URL=database_url)

    first = done(run("migrate", DATABASE_URL=database_url))
    second = done(run("migrate", DATABASE_URL=database_url))

    assert_refused(refused, 1, "counterfoil migrate")
    assert first.startswith("applied 0001_")
    assert second == "the schema is up to date\n"


def test_serving_on_an_old_schema_is_refused(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    for command in ("serve", "work"):
        result = run(command, DATABASE_URL=database_url, PORT="58231")

        assert_refused(result, 2, "counterfoil migrate")


def test_a_migration_that_was_changed_is_told(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE schema_migrations SET checksum = 'another'")

    assert_refused(run("migrate", DATABASE_URL=database_url), 1, "0001_")


# --- what is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["keys", "list"], ["merchants", "list"], ["migrate"]])
def test_a_database_out_of_reach_is_one_line(command: list[str]) -> None:
    assert_refused(run(*command), 1, "DATABASE_URL")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "0"),
        ("PORT", "65536"),
        ("PORT", "８０８０"),
        ("PORT", "http"),
        ("DATABASE_URL", "mysql://x"),
        ("BANK_URL", "ftp://x"),
        ("BANK_PROFILE", "other"),
        ("BANK_TIMEOUT_SECONDS", "0"),
        ("BANK_TIMEOUT_SECONDS", "nan"),
        ("REQUEST_DEADLINE_SECONDS", "60"),
        ("RATE_LIMIT_PER_MINUTE", "-1"),
        ("RATE_LIMIT_PER_MINUTE", "1.5"),
        ("VAULT_KEYS", "not a key"),
        ("API_KEY", "with space"),
        ("LOG_LEVEL", "LOUD"),
        ("LOG_FORMAT", "xml"),
        ("ENVIRONMENT", "prod"),
        ("REDIS_URL", "http://x"),
        ("PUBLIC_URL", "x"),
        ("ASYNC_DELAY", "-1"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "work", "migrate"])
def test_a_wrong_setting_is_one_line_that_names_it(command: str, name: str, value: str) -> None:
    assert_refused(run(command, **{name: value}), 2, name)


@pytest.mark.parametrize("missing", ["DATABASE_URL", "BANK_URL", "VAULT_KEYS", "CHECKPOINT_KEY"])
def test_production_wants_its_own_secrets(missing: str) -> None:
    environ: dict[str, str | None] = {
        "ENVIRONMENT": "production",
        "DATABASE_URL": NO_DATABASE,
        "BANK_URL": "https://bank.example",
        "VAULT_KEYS": new_key(),
        "CHECKPOINT_KEY": done(run("keygen", "checkpoint")).strip(),
    }
    environ[missing] = None

    for command in ("serve", "work"):
        assert_refused(run(command, **environ), 2, missing, "production")


def test_production_takes_no_key_for_demos() -> None:
    environ = {
        "ENVIRONMENT": "production",
        "BANK_URL": "https://bank.example",
        "VAULT_KEYS": new_key(),
        "CHECKPOINT_KEY": done(run("keygen", "checkpoint")).strip(),
        "API_KEY": "sk_test_123",
    }

    assert_refused(run("serve", **environ), 2, "API_KEY")


# --- versions, checkpoint keys, what is stuck ----------------------------------------------------


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))

    assert done(run("--version")).strip().endswith(project["project"]["version"])


def test_a_checkpoint_key_is_taken_as_it_is_made_and_refused_when_it_is_damaged() -> None:
    key = done(run("keygen", "checkpoint")).strip()
    name, key_id, secret = key.removeprefix("PRIVATE+KEY+").split("+", 2)

    check_signing_key(key)
    for damaged in ("short", f"PRIVATE+KEY+{name}+00000000+{secret}", key[:-4]):
        assert_refused(run("migrate", CHECKPOINT_KEY=damaged), 2, "CHECKPOINT_KEY")
    assert len(key_id) == 8


def test_what_is_stuck_is_listed_with_its_age(database_url: str) -> None:
    bank = FakeBank(SteppableClock(datetime.now(UTC)), ANY_AMOUNT)
    bank.will_answer(Unknown(reason="HTTP 500 internal_error", unanswered=False))
    with an_api(database_url, BANK_URL=NO_BANK) as api, api.asking(bank):
        pending = api.merchant().authorize()

    (row,) = json.loads(done(run("stuck", "--json", DATABASE_URL=database_url)))

    assert pending.status_code == 202
    assert row == {
        "payment_id": json.loads(pending.data)["payment_id"],
        "operation": "authorization",
        "reason": "HTTP 500 internal_error",
        "since": row["since"],
        "age_seconds": row["age_seconds"],
        "attempts": 0,
    }
    assert 0 <= row["age_seconds"] < 60


# --- an operator's decision -----------------------------------------------------------------------


def parked(api: Api, merchant: Caller) -> str:
    """A capture that the bank did not answer; the payment."""
    bank = FakeBank(SteppableClock(datetime.now(UTC)), ANY_AMOUNT)
    with api.asking(bank):
        payment_id: str = merchant.authorized()["payment_id"]
        bank.will_answer(Unknown(reason="no answer", unanswered=True))
        assert capture_as_before(merchant, payment_id).status_code == 202
    return payment_id


def capture_as_before(merchant: Caller, payment_id: str) -> TestResponse:
    return merchant.post("/v1/captures", {"payment_id": payment_id}, key="the-capture")


def test_what_an_operator_decides_is_what_the_client_is_told(database_url: str) -> None:
    with an_api(database_url, BANK_URL=NO_BANK) as api:
        merchant = api.merchant()
        payment_id = parked(api, merchant)
        options = ["--as", "captured", "--bank-id", "cap_7", "--reason", "ticket 4711"]

        said = done(run("resolve", payment_id, *options, DATABASE_URL=database_url))

        again = shaped(ReceiptOut, capture_as_before(merchant, payment_id), 201)
        receipt = merchant.receipt(payment_id)
        order = shaped(OrderOut, merchant.get(f"/v1/orders/{receipt['order_id']}"), 200)
    assert said.strip() == f"{payment_id} is captured, and needs no review"
    assert again["bank"]["capture_id"] == "cap_7"
    assert (receipt["status"], receipt["needs_review"]) == ("captured", None)
    assert order["ok_to_ship"]
    assert json.loads(done(run("stuck", "--json", DATABASE_URL=database_url))) == []


def test_a_decision_is_kept_with_who_made_it_and_why(database_url: str) -> None:
    with an_api(database_url, BANK_URL=NO_BANK) as api:
        payment_id = parked(api, api.merchant())
    options = ["--as", "authorized", "--reason", "never arrived", "--actor", "ada", "--json"]

    text = done(run("resolve", payment_id, *options, DATABASE_URL=database_url))

    assert json.loads(text)["status"] == "authorized"
    with psycopg.connect(database_url, row_factory=dict_row) as connection:
        events = connection.execute(
            "SELECT topic, cause, convert_from(state, 'UTF8') AS state FROM events"
            " ORDER BY originator_version DESC LIMIT 2"
        ).fetchall()
    assert [each["topic"] for each in events] == [
        "payment.review_resolved",
        "payment.capture_declined",
    ]
    assert {each["cause"] for each in events} == {'{"actor":"ada"}'}
    assert json.loads(events[0]["state"])["reason"] == "never arrived"


@pytest.mark.parametrize(
    ("options", "status", "word"),
    [
        (["--as", "declined", "--reason", "r"], 1, "refused"),
        (["--as", "captured", "--reason", "r"], 1, "--bank-id cap_"),
        (["--as", "captured", "--bank-id", "auth_1", "--reason", "r"], 1, "cap_"),
        (["--as", "authorized", "--reason", " "], 1, "reason"),
        (["--as", "authorized", "--reason", "r", "--actor", "a\nb"], 2, "--actor"),
    ],
)
def test_a_decision_that_cannot_be_is_one_line_and_changes_nothing(
    database_url: str, options: list[str], status: int, word: str
) -> None:
    with an_api(database_url, BANK_URL=NO_BANK) as api:
        merchant = api.merchant()
        payment_id = parked(api, merchant)
        before = merchant.receipt(payment_id)

        refused = run("resolve", payment_id, *options, DATABASE_URL=database_url)

        assert_refused(refused, status, word)
        assert merchant.receipt(payment_id) == before


def test_a_payment_that_is_certain_is_not_to_be_decided(database_url: str) -> None:
    bank = FakeBank(SteppableClock(datetime.now(UTC)), ANY_AMOUNT)
    with an_api(database_url, BANK_URL=NO_BANK) as api, api.asking(bank):
        payment_id = api.merchant().authorized()["payment_id"]

    refused = run(
        "resolve", payment_id, "--as", "voided", "--reason", "r", DATABASE_URL=database_url
    )

    assert_refused(refused, 1, "nothing_to_resolve")


@pytest.mark.parametrize(
    ("payment", "status"), [("pay_1", 2), ("pay_01jd3xk5v8e2m9q4w7r6t0y1b2", 1)]
)
def test_a_payment_that_is_none_is_not_decided(
    shared_database_url: str, payment: str, status: int
) -> None:
    options = ["--as", "voided", "--reason", "r"]

    assert_refused(
        run("resolve", payment, *options, DATABASE_URL=shared_database_url), status, payment
    )


@pytest.mark.parametrize("command", [("reconcile",), ("keys", "create", "--merchant", "Shop")])
def test_a_database_that_cannot_be_written_to_is_told_in_one_line(
    database_url: str, command: tuple[str, ...]
) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL(READ_ONLY).format(database))
        try:
            result = run(*command, DATABASE_URL=database_url)
        finally:
            connection.execute(sql.SQL(WRITABLE).format(database))

    assert_refused(result, 1, "out of reach")


@pytest.mark.parametrize(
    "command", [("stuck",), ("verify",), ("reconcile",), ("keys", "create", "--merchant", "Shop")]
)
def test_a_folder_in_which_nothing_is_kept_is_no_empty_ledger(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    result = run(*command, DATABASE_URL=None, DATA_DIR=str(tmp_path / "mistyped"))

    assert_refused(result, 2, "nothing is kept in", "mistyped")
    assert list(tmp_path.iterdir()) == []
