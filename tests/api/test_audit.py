"""What an auditor is told: the log, its signed head, proofs that hold, and no more than they may see."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from api.audit.schemas import (
    AuditEventList,
    AuditEventOut,
    AuditKeyOut,
    HistoryOut,
    SealedEventOut,
)
from api.schemas import InclusionOut, ProvenReceiptOut
from domain.commands import Mode
from domain.evidence import (
    Leaf,
    leaf_bytes,
    leaf_hash,
    read_checkpoint,
    read_leaf,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from domain.ids import Prefix, decode
from infrastructure.api_keys import EVERY_MERCHANT, Scope
from infrastructure.audit.notes import read_note, signers
from infrastructure.checkpoint_keys import verifier_key
from infrastructure.event_store import COMPACT
from tests.api.an_api import Api, Caller, an_api, error_of, json_of, refusal, shaped
from tests.audit.a_sealed_log import ORIGIN, SealedLog, a_witness, audit_settings, cosigned
from tests.builders import FULL_AMOUNTS
from tests.fakes import FakeBank, SteppableClock

NOWHERE: Final = "http://127.0.0.1:9"
AUDIT: Final = [Scope.AUDIT_READ]
MISSING: Final = "resource_missing"
INVALID: Final = "invalid_request_error"


@pytest.fixture
def own_api(database_url: str) -> Iterator[Api]:
    """A log of its own, since what is told is of the whole of it."""
    bank = FakeBank(SteppableClock(), FULL_AMOUNTS)
    with an_api(database_url, BANK_URL=NOWHERE) as api, api.asking(bank):
        yield api


@pytest.fixture
def log(own_api: Api, tmp_path: Path) -> SealedLog:
    return SealedLog(own_api.services.pool, audit_settings(tmp_path))


@pytest.fixture
def auditor(own_api: Api) -> Caller:
    return own_api.merchant(EVERY_MERCHANT, mode=Mode.LIVE, scopes=AUDIT)


def decoded(texts: list[str]) -> list[bytes]:
    return [base64.b64decode(text, validate=True) for text in texts]


def whole_log(auditor: Caller, limit: int = 3) -> list[dict[str, Any]]:
    """All pages, one after the other, by `next_cursor`."""
    path, events = f"/v1/audit/events?limit={limit}", []
    page = shaped(AuditEventList, auditor.get(path), 200)
    while True:
        events += page["data"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return events
        page = shaped(AuditEventList, auditor.get(f"{path}&after={page['next_cursor']}"), 200)


# --- the log, the head and the proofs -----------------------------------------------------------


def test_an_auditor_checks_the_whole_log_by_what_is_published_alone(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    own_api.merchant().refunded()
    own_api.merchant().voided()
    log.signed()

    events = whole_log(auditor)
    key = shaped(AuditKeyOut, auditor.get("/v1/audit/key"), 200)
    note = read_note(auditor.get("/v1/audit/checkpoint").text)

    checkpoint = read_checkpoint(note.text)
    assert signers(note, [verifier_key(key["vkey"])])
    assert (checkpoint.origin, key["origin"]) == (ORIGIN, ORIGIN)
    assert [event["position"] for event in events] == list(range(checkpoint.size))
    leaves = [base64.b64decode(event["leaf"]) for event in events]
    assert root_of([leaf_hash(leaf) for leaf in leaves]) == checkpoint.root
    for event, leaf in zip(events, leaves, strict=True):
        AuditEventOut.model_validate(event)
        assert base64.b64decode(event["hash"]) == leaf_hash(leaf)
        check_told(event, read_leaf(leaf))


def check_told(event: dict[str, Any], leaf: Leaf) -> None:
    """What is told is what was hashed."""
    assert (event["version"], event["type"], event["at"]) == (leaf.version, leaf.topic, leaf.at)
    assert str(decode(Prefix.EVENT, event["id"])) == leaf.event_id
    assert str(decode(Prefix.PAYMENT, event["aggregate"])) == leaf.aggregate
    assert COMPACT.encode(event["data"]).encode() == leaf.state
    cause = {name: value for name, value in event["cause"].items() if value is not None}
    assert COMPACT.encode(cause) == leaf.cause


def test_every_event_is_proven_to_be_in_the_checkpoint(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    for _ in range(3):
        own_api.merchant().captured()
    log.signed()

    checkpoint = read_checkpoint(read_note(auditor.get("/v1/audit/checkpoint").text).text)
    for event in whole_log(auditor):
        path = f"/v1/audit/proof?position={event['position']}"
        proof = shaped(InclusionOut, auditor.get(path), 200)
        assert proof["leaf_hash"] == event["hash"]
        assert base64.b64decode(proof["root_hash"]) == checkpoint.root
        verify_inclusion(
            base64.b64decode(proof["leaf_hash"]),
            proof["position"],
            proof["tree_size"],
            decoded(proof["hashes"]),
            checkpoint.root,
        )


def test_each_checkpoint_is_proven_to_go_on_from_the_one_before(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    kept = []
    for _ in range(4):
        own_api.merchant().captured()
        log.signed()
        kept.append(read_checkpoint(read_note(auditor.get("/v1/audit/checkpoint").text).text))

    for old in kept:
        for new in kept[kept.index(old) :]:
            path = f"/v1/audit/proof?from={old.size}&to={new.size}"
            proof = json_of(auditor.get(path))
            assert list(proof) == ["from", "to", "hashes"]
            hashes = decoded(proof["hashes"])
            verify_consistency(old.size, new.size, hashes, old.root, new.root)


def test_what_no_checkpoint_covers_has_no_position_yet(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    merchant = own_api.merchant()
    nothing = error_of(auditor.get("/v1/audit/checkpoint"), 404)
    assert error_of(auditor.get("/v1/audit/key"), 404)["code"] == nothing["code"]
    assert nothing["code"] == "checkpoint_not_found"
    assert whole_log(auditor) == []
    payment_id = merchant.captured()["payment_id"]
    log.signed()
    merchant.refund(payment_id)

    (*covered, asked, done) = history(merchant, payment_id)

    assert all(event["position"] is not None and event["hash"] for event in covered)
    for event in (asked, done):
        assert (event["position"], event["hash"]) == (None, None)
    assert len(whole_log(auditor)) == len(covered) == 4
    beyond = auditor.get("/v1/audit/proof?position=4")
    assert refusal(beyond) == (404, MISSING, "position_not_found", "position")
    log.signed()
    assert [event["position"] for event in history(merchant, payment_id)] == list(range(6))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (400, INVALID, "missing_param", "position")),
        ("position=-1", (400, INVALID, "invalid_param", "position")),
        ("position=1.0", (400, INVALID, "invalid_param", "position")),
        ("position=x", (400, INVALID, "invalid_param", "position")),
        ("position=9999999999999999", (400, INVALID, "invalid_param", "position")),
        ("position=999999999999999", (404, MISSING, "position_not_found", "position")),
        ("position=0&from=0&to=0", (400, INVALID, "invalid_param", "position")),
        ("from=1", (400, INVALID, "missing_param", "to")),
        ("to=1", (400, INVALID, "missing_param", "from")),
        ("from=2&to=1", (400, INVALID, "invalid_param", "from")),
        ("from=0&to=999999999999", (404, MISSING, "position_not_found", "to")),
        ("position=0&x=1", (400, INVALID, "unknown_param", "x")),
        ("old=0&new=0", (400, INVALID, "unknown_param", "old")),
    ],
)
def test_a_proof_of_nothing_is_refused_by_the_name_of_what_is_wrong(
    api: Api, query: str, expected: tuple[int, str, str, str]
) -> None:
    auditor = api.merchant(scopes=AUDIT)

    assert refusal(auditor.get(f"/v1/audit/proof?{query}")) == expected


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=0", "limit=101", "from=1"])
def test_a_part_of_the_log_that_is_none_is_refused(api: Api, query: str) -> None:
    auditor = api.merchant(scopes=AUDIT)

    response = auditor.get(f"/v1/audit/events?{query}")

    assert (response.status_code, error_of(response, 400)["param"]) == (
        400,
        query.split("=", maxsplit=1)[0],
    )


@pytest.mark.parametrize(
    ("accept", "status"),
    [("text/plain", 200), ("*/*", 200), ("application/json", 200), ("text/html", 406)],
)
def test_a_checkpoint_is_plain_text_to_whoever_takes_that(
    own_api: Api, log: SealedLog, auditor: Caller, accept: str, status: int
) -> None:
    log.signed()

    response = auditor.get("/v1/audit/checkpoint", headers={"Accept": accept})

    assert response.status_code == status
    assert auditor.get("/v1/audit/key", headers={"Accept": "text/plain"}).status_code == 406


def test_what_a_witness_cosigned_is_shown_with_the_checkpoint(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    witness, secret = a_witness()
    log.settings = audit_settings(log.settings.data_dir, CHECKPOINT_WITNESSES=witness.text)
    note = log.signed().note

    log.cosign(cosigned(note, witness, secret, 1_700_000_000))

    whole = auditor.get("/v1/audit/checkpoint").text
    assert whole == cosigned(note, witness, secret, 1_700_000_000)


# --- who sees what ------------------------------------------------------------------------------


def test_a_merchant_sees_its_own_events_whole_and_others_as_position_and_hash(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    mine = own_api.merchant("mine", scopes=[*Scope])
    for merchant in (mine, own_api.merchant(), own_api.merchant("mine", mode=Mode.LIVE)):
        merchant.captured()
    customer = json_of(mine.post("/v1/customers", {"name": "Ada"}))["id"]
    log.signed()

    seen, everything = whole_log(mine), whole_log(auditor)

    assert len(seen) == len(everything) == 13
    own = [event for event in seen if "data" in event]
    assert len(own) == 5
    assert customer in {event["aggregate"] for event in own}
    for event, whole in zip(seen, everything, strict=True):
        if event not in own:
            SealedEventOut.model_validate(event)
            assert event == {"position": whole["position"], "hash": whole["hash"]}
        else:
            assert event == whole


def history(caller: Caller, payment_id: str) -> list[dict[str, Any]]:
    page = shaped(HistoryOut, caller.get(f"/v1/payments/{payment_id}/history"), 200)
    assert (page["has_more"], page["url"]) == (False, f"/v1/payments/{payment_id}/history")
    events: list[dict[str, Any]] = page["data"]
    return events


def test_a_history_tells_each_event_by_whom_and_by_which_request(own_api: Api) -> None:
    merchant = own_api.merchant()
    payment_id = merchant.authorized()["payment_id"]
    captured = merchant.post("/v1/captures", {"payment_id": payment_id}, key="the capture")
    assert merchant.record is not None

    events = history(merchant, payment_id)

    assert [event["type"] for event in events] == [
        "payment.authorization_requested",
        "payment.authorized",
        "payment.capture_requested",
        "payment.captured",
    ]
    assert [event["version"] for event in events] == [1, 2, 3, 4]
    assert all(list(event)[-1] == "hash" for event in events)
    assert events[-1]["cause"] == {
        "request_id": captured.headers["Request-Id"],
        "idempotency_key": "the capture",
        "actor": merchant.record.key_id,
    }
    assert events[0]["data"]["amount_minor"] == 5000
    receipt = merchant.receipt(payment_id)
    assert (events[-1]["at"], events[-1]["version"]) == (receipt["updated_at"], receipt["version"])


def test_an_auditor_reads_every_history_and_a_key_for_the_audit_its_merchants(
    own_api: Api, auditor: Caller
) -> None:
    payment_id = own_api.merchant("theirs").authorized()["payment_id"]

    assert len(history(auditor, payment_id)) == 2
    assert len(history(own_api.merchant("theirs", scopes=AUDIT), payment_id)) == 2
    other = own_api.merchant(scopes=AUDIT).get(f"/v1/payments/{payment_id}/history")
    assert refusal(other) == (404, MISSING, "payment_not_found", None)


@pytest.mark.parametrize("payment_id", ["x", "ch_00000000000000000000000000", "pay_" + "0" * 26])
def test_what_is_no_payment_has_no_history(api: Api, payment_id: str) -> None:
    response = api.merchant().get(f"/v1/payments/{payment_id}/history")

    assert refusal(response) == (404, MISSING, "payment_not_found", None)


# --- receipts -----------------------------------------------------------------------------------


def test_a_receipt_is_proven_by_the_event_that_made_it_what_it_is(
    own_api: Api, log: SealedLog, auditor: Caller
) -> None:
    merchant = own_api.merchant()
    payment_id = merchant.refunded()["payment_id"]
    path = f"/v1/receipts/{payment_id}?proof=true"
    assert shaped(ProvenReceiptOut, merchant.get(path), 200)["proof"] is None
    log.signed()

    for query, version in (("", 6), ("&version=2", 2)):
        receipt = shaped(ProvenReceiptOut, merchant.get(path + query), 200)
        proof = receipt["proof"]
        leaf = base64.b64decode(proof["leaf"])
        event = read_leaf(leaf)
        assert str(decode(Prefix.PAYMENT, receipt["payment_id"])) == event.aggregate
        assert (receipt["version"], receipt["updated_at"]) == (event.version, event.at)
        assert event.version == version
        assert base64.b64decode(proof["leaf_hash"]) == leaf_hash(leaf)
        checkpoint = read_checkpoint(read_note(auditor.get("/v1/audit/checkpoint").text).text)
        verify_inclusion(
            leaf_hash(leaf),
            proof["position"],
            checkpoint.size,
            decoded(proof["hashes"]),
            checkpoint.root,
        )


def test_a_receipt_has_no_proof_unless_one_is_asked_for(api: Api, merchant: Caller) -> None:
    payment_id = merchant.authorized()["payment_id"]

    plain = json_of(merchant.get(f"/v1/receipts/{payment_id}?proof=false"))

    assert "proof" not in plain
    for wrong in ("1", "TRUE", "", "yes"):
        response = merchant.get(f"/v1/receipts/{payment_id}?proof={wrong}")
        assert refusal(response) == (400, INVALID, "invalid_param", "proof")


def test_the_leaf_of_an_event_is_these_bytes_for_ever() -> None:
    golden = Path(__file__).parents[1] / "golden" / "leaf.hex"
    leaf = Leaf(
        position=1_234_567,
        event_id="019390f2-0000-7000-8000-0000000000e1",
        aggregate="019390f1-ffff-7fff-bfff-fffffffffffe",
        version=3,
        topic="payment.capture_requested",
        at="2026-11-20T12:00:00.000001Z",
        state='{"amount_minor":5000,"at":"2026-11-20T12:00:00.000001Z","note":"Grüße"}'.encode(),
        cause='{"actor":"key_01jd3xk5v8e2m9q4w7r6t0y1b2","request_id":"req_1"}',
    )

    encoded = leaf_bytes(leaf)

    lines = dict(line.split(": ") for line in golden.read_text("utf-8").splitlines())
    assert encoded.hex() == lines["leaf"]
    assert leaf_hash(encoded).hex() == lines["leaf_hash"]
    assert read_leaf(encoded) == leaf
    assert re.fullmatch(rb"counterfoil event v1\n\0\0\0\x071234567\0\0\0\x24.*", encoded, re.DOTALL)
