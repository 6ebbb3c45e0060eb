"""`counterfoil checkpoint` and `counterfoil history`: what programs and people read of them."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, LiteralString

import pytest

from domain.evidence import read_checkpoint
from infrastructure.audit.notes import read_note, signers
from infrastructure.audit.pushes import Pushes
from infrastructure.checkpoint_keys import new_signing_key, verifier_key
from tests.api.an_api import Api, an_api, json_of
from tests.audit.a_sealed_log import a_witness, cosigned
from tests.builders import ANY_AMOUNT
from tests.fakes import FakeBank, SteppableClock
from tests.patience import patient_pool
from tests.scripts.test_cli import NO_BANK, assert_refused, done, run

NOBODYS = "pay_01m0000000000000000000000x"
PAUSED: LiteralString = "SELECT due_at FROM audit_pushes WHERE failures > 0"


@pytest.fixture
def api(database_url: str) -> Iterator[Api]:
    bank = FakeBank(SteppableClock(), ANY_AMOUNT)
    with an_api(database_url, BANK_URL=NO_BANK) as api, api.asking(bank):
        yield api


@pytest.fixture
def environ(database_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "DATA_DIR": str(tmp_path),
        "PUBLIC_URL": "https://ledger.example/pay",
    }


# --- checkpoints --------------------------------------------------------------------------------


def test_a_checkpoint_is_made_when_it_is_asked_for_and_kept(
    api: Api, environ: dict[str, str]
) -> None:
    api.merchant().captured()

    whole = done(run("checkpoint", **environ))
    made = json.loads(done(run("checkpoint", "--json", **environ)))

    checkpoint = read_checkpoint(read_note(whole).text)
    assert (checkpoint.origin, checkpoint.size) == ("ledger.example/pay", 4)
    assert (made["note"], made["size"]) == (whole, 4)
    assert json.loads(done(run("checkpoint", "list", "--json", **environ))) == [made]
    assert "root" in done(run("checkpoint", "list", **environ))


def test_a_key_is_rotated_by_one_checkpoint_that_both_have_signed(
    api: Api, environ: dict[str, str]
) -> None:
    done(run("checkpoint", **environ))
    (old,) = json.loads(done(run("checkpoint", "keys", "--json", **environ)))

    new = done(run("checkpoint", "rotate", **environ)).strip()

    api.merchant().authorized()
    after = read_note(done(run("checkpoint", **environ)))
    keys = json.loads(done(run("checkpoint", "keys", "--json", **environ)))
    plain = done(run("checkpoint", "keys", "--plain", **environ)).split()
    made = json.loads(done(run("checkpoint", "list", "--json", **environ)))
    assert [key["vkey"] for key in keys] == [old["vkey"], new]
    assert plain == [old["vkey"], new]
    assert [key["signs_now"] for key in keys] == [False, True]
    assert [key.text for key in signers(after, [verifier_key(k["vkey"]) for k in keys])] == [new]
    assert [each["keys"] for each in made] == [[new], [new, old["vkey"]], [old["vkey"]]]


def test_a_key_that_is_set_is_rotated_where_it_is_set(environ: dict[str, str]) -> None:
    result = run("checkpoint", "rotate", **environ, CHECKPOINT_KEY=new_signing_key())

    assert_refused(result, 2, "CHECKPOINT_KEY", "NEW,OLD")


def test_a_cosignature_is_taken_from_a_file_and_a_strangers_is_not(
    environ: dict[str, str], tmp_path: Path
) -> None:
    witness, secret = a_witness()
    environ["CHECKPOINT_WITNESSES"] = witness.text
    note = done(run("checkpoint", **environ))
    file, strange = tmp_path / "cosigned", tmp_path / "strange"
    file.write_text(cosigned(note, witness, secret, 1_700_000_000))
    strange.write_text(cosigned(note, *a_witness("stranger.example"), 1_700_000_000))

    assert_refused(run("checkpoint", "cosign", str(strange), **environ), 1, "no witness")
    said = done(run("checkpoint", "cosign", str(file), **environ))

    assert said.strip() == "cosigned by witness.example/w"
    (made,) = json.loads(done(run("checkpoint", "list", "--json", **environ)))
    assert made["signatures"] == ["counterfoil", "witness.example/w"]


def test_a_tree_that_is_not_what_it_was_is_one_line_and_no_checkpoint(
    api: Api, environ: dict[str, str]
) -> None:
    api.merchant().authorized()
    done(run("checkpoint", **environ))
    api.execute("UPDATE audit_tree SET size = 1")

    assert_refused_at_last(run("checkpoint", **environ), "nothing was signed", "2 were signed")


def assert_refused_at_last(result: Any, *words: str) -> None:
    """With status 1; what is logged comes before."""
    assert (result.exit_code, result.stdout) == (1, "")
    last = result.stderr.splitlines()[-1]
    assert last.startswith("counterfoil: ")
    assert all(word in last for word in words), last


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CHECKPOINT_EVERY_SECONDS", "-1"),
        ("CHECKPOINT_ORIGIN", "two words"),
        ("CHECKPOINT_ORIGIN", "a+b"),
        ("CHECKPOINT_PUSH", "mailto:auditor@example.com"),
        ("CHECKPOINT_PUSH", "file:relative"),
        ("CHECKPOINT_WITNESSES", "witness.example"),
        ("CHECKPOINT_WITNESSES", "w+00000000+BAAA"),
        ("CHECKPOINT_KEY", ","),
    ],
)
def test_a_wrong_setting_for_checkpoints_is_one_line(name: str, value: str) -> None:
    assert_refused(run("checkpoint", "list", **{name: value}), 2, name)


def test_a_signing_key_has_the_name_that_it_is_given() -> None:
    key = done(run("keygen", "checkpoint", "--name", "ledger.example/log"))

    assert key.startswith("PRIVATE+KEY+ledger.example/log+")
    assert_refused(run("keygen", "checkpoint", "--name", "a b"), 2, "--name")


# --- pushes -------------------------------------------------------------------------------------


@dataclass
class Outside:
    """An auditor's server, which takes what it is sent, or does not."""

    status: int = 200
    taken: list[str] = field(default_factory=list)
    asked: int = 0

    def __post_init__(self) -> None:
        outside = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outside.asked += 1
                if outside.status == 200:
                    outside.taken.append(body)
                self.send_response(outside.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://user:secret@127.0.0.1:{self.server.server_port}/checkpoints"


@pytest.fixture
def outside() -> Iterator[Outside]:
    outside = Outside()
    yield outside
    outside.server.shutdown()
    outside.server.server_close()


def test_each_checkpoint_is_kept_outside_in_order_once(
    api: Api, environ: dict[str, str], outside: Outside, tmp_path: Path
) -> None:
    file, folder = tmp_path / "all", tmp_path / "each"
    folder.mkdir()
    environ["CHECKPOINT_PUSH"] = f"file:{file},file://{folder}/,{outside.url}"

    notes = []
    for _ in range(3):
        api.merchant().authorized()
        notes.append(done(run("checkpoint", **environ)))
    done(run("checkpoint", **environ))

    assert outside.taken == notes
    assert file.read_text() == "".join(f"{note}\n" for note in notes)
    assert [each.read_text() for each in sorted(folder.iterdir())] == notes


def test_a_place_that_fails_holds_up_nobody_and_is_told_later(
    api: Api, environ: dict[str, str], outside: Outside, tmp_path: Path
) -> None:
    file = tmp_path / "all"
    outside.status = 503
    environ["CHECKPOINT_PUSH"] = f"{outside.url},file:{tmp_path}/none/x,file:{file}"
    began = datetime.now(UTC)
    first = run("checkpoint", **environ)
    with patient_pool(environ["DATABASE_URL"], size=1) as pool, pool.connection() as connection:
        paused = connection.execute(PAUSED).fetchall()
    assert [row["due_at"] > began + timedelta(seconds=1) for row in paused] == [True, True]
    api.execute("UPDATE audit_pushes SET due_at = due_at + interval '1 hour' WHERE failures > 0")
    api.merchant().authorized()

    second = run("checkpoint", **environ)

    assert outside.asked == 1, "it is not asked again at once"
    assert done(first) + "\n" + done(second) + "\n" == file.read_text()
    assert "HTTP 503" in first.stderr
    assert "secret" not in first.stderr
    outside.status = 200
    api.execute("UPDATE audit_pushes SET due_at = clock_timestamp()")
    with patient_pool(environ["DATABASE_URL"], size=1) as pool:
        assert Pushes(pool, [outside.url]).step() == 2
    assert outside.taken == [first.stdout, second.stdout]


def test_another_checkpoint_in_the_place_of_one_that_was_kept_is_told_of(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "each").mkdir()
    (tmp_path / "each" / "000000000001.txt").write_text("another")
    environ["CHECKPOINT_PUSH"] = f"file:{tmp_path}/each/"

    result = run("checkpoint", **environ)

    assert "another checkpoint is there" in result.stderr
    assert [file.read_text() for file in (tmp_path / "each").iterdir()] == ["another"]


# --- histories ----------------------------------------------------------------------------------


def test_a_history_says_who_and_why_and_what_it_changed(api: Api, environ: dict[str, str]) -> None:
    merchant = api.merchant("Shop")
    assert merchant.record is not None
    payment_id = merchant.captured()["payment_id"]
    merchant.refund(payment_id, amount=2000)
    done(run("checkpoint", **environ))

    told = json.loads(done(run("history", payment_id, "--json", **environ)))
    words = done(run("history", payment_id, **environ))

    published = json_of(merchant.get(f"/v1/payments/{payment_id}/history"))["data"]
    assert [
        {k: v for k, v in e.items() if k not in ("who", "changes")} for e in told["events"]
    ] == published
    assert {event["who"] for event in told["events"]} == {"Shop"}
    assert told["receipt"] == merchant.receipt(payment_id)
    first, held, *_, refunded = told["events"]
    assert first["changes"]["status"] == [None, "pending"]
    assert held["changes"]["status"] == ["pending", "authorized"]
    assert refunded["changes"]["amount_refunded"] == [0, 2000]
    assert refunded["changes"]["pending_operation"] == ["refund", None]
    assert "timeline" not in refunded["changes"]
    assert "amount_refunded: 0 -> 2000" in words
    assert f"by {merchant.record.key_id} of Shop, request_id req_" in words
    assert words.strip().endswith(f"{payment_id} is captured: version 6")


def test_a_history_ends_at_the_moment_that_is_asked_for(api: Api, environ: dict[str, str]) -> None:
    merchant = api.merchant()
    then = merchant.authorized()
    merchant.capture(then["payment_id"])

    for option, value in (("--version", "2"), ("--as-of", then["updated_at"])):
        words = ["history", then["payment_id"], option, value, "--json"]
        told = json.loads(done(run(*words, **environ)))
        assert told["receipt"] == then
        assert len(told["events"]) == 2


def test_a_history_that_there_is_none_of_is_one_line(api: Api, environ: dict[str, str]) -> None:
    payment_id = api.merchant().authorized()["payment_id"]

    assert_refused(run("history", "x", **environ), 2, "pay_")
    assert_refused(run("history", NOBODYS, **environ), 1, NOBODYS)
    assert_refused(run("history", payment_id, "--version", "3", **environ), 1, payment_id)
    assert_refused(run("history", payment_id, "--as-of", "2020-01-01", **environ), 1, payment_id)
    assert_refused(run("history", payment_id, "--as-of", "soon", **environ), 2, "--as-of")
    both = ["--as-of", "2030-01-01", "--version", "1"]
    assert_refused(run("history", payment_id, *both, **environ), 2, "not both")
