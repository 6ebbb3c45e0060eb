"""After the last misfortune: wait until nothing is in doubt, let the clients finish, hold everything
to account."""

import http.client
import json
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from scripts.bench.figures import percentile
from scripts.reality import books
from scripts.reality.canaries import CanarySearch
from scripts.reality.shoppers import (
    EXPECTED,
    PATIENCE_SECONDS,
    Answer,
    Ask,
    Memory,
    all_at_once,
    send,
)
from scripts.reality.system import API_KEY, System

MOST_SECONDS_TO_QUIET: Final = 240.0
LOOK_SECONDS: Final = 0.1
REPLAY_THREADS: Final = 16
PAGE: Final = 100
SHOWN_VIOLATIONS: Final = 10
TARGET_P99_SECONDS: Final = 90.0
READ_MODELS: Final = ("receipts", "refunds")

IN_DOUBT: Final[LiteralString] = "SELECT bank_key FROM bank_calls"
TABLES: Final[LiteralString] = """
    SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'
"""
# Positions without gaps; keys with an answer; versions without gaps.
HOLES: Final[LiteralString] = """
    SELECT 'shard ' || shard AS what FROM shard_heads h
    WHERE position <> (SELECT count(*) FROM events e WHERE e.shard = h.shard)
    UNION ALL
    SELECT 'payment ' || originator_id FROM events GROUP BY originator_id
    HAVING max(originator_version) <> count(*)
"""
UNANSWERED_KEYS: Final[LiteralString] = """
    SELECT key AS what FROM idempotency_keys AS k
    LEFT JOIN idempotency_answers AS a USING (request_id, merchant_id, mode, key)
    WHERE coalesce(k.status, a.status) IS NULL
"""


@dataclass(slots=True)
class Check:
    """One promise: how much was looked at, and where it is broken."""

    name: str
    looked_at: int
    violations: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Recovery:
    """How long what was in doubt took, from the moment that the bank and the database were well."""

    seconds: list[float]
    left: list[str]

    def figures(self) -> dict[str, Any]:
        """p50, p99 and the longest."""
        every = sorted(self.seconds)
        shown = {f"p{it}_seconds": percentile(every, it) for it in (50, 99)}
        longest = round(every[-1], 2) if every else None
        return {"in_doubt": len(every) + len(self.left), **shown, "max_seconds": longest}


def until_quiet(system: System) -> Recovery:
    """Waits, for a bounded time, until no operation is in doubt."""
    began = time.monotonic()
    open_calls = _in_doubt(system)
    took: list[float] = []
    while open_calls and time.monotonic() - began < MOST_SECONDS_TO_QUIET:
        time.sleep(LOOK_SECONDS)
        still = _in_doubt(system)
        took += [time.monotonic() - began] * len(open_calls - still)
        open_calls &= still
    return Recovery(took, sorted(open_calls))


def _in_doubt(system: System) -> set[str]:
    with psycopg.connect(system.database_url, connect_timeout=5) as connection:
        return {row[0] for row in connection.execute(IN_DOUBT)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Every check, and how it all ended."""

    checks: list[Check]
    statuses: Counter[str]
    reviews: Counter[str]
    second_holds: int


def reached(
    system: System, memory: Memory, search: CanarySearch, card_of: Mapping[str, str]
) -> Verdict:
    """Everything that was promised, looked at."""
    asks = list(memory.asks.values())
    told = {key: list(given) for key, given in memory.answers.items()}
    answers: defaultdict[str, list[Answer]] = defaultdict(list, told)
    promised = [ask for ask in asks if books.is_promised(answers[ask.key])]
    again = _asked_again(system, promised)
    now = {ask.key: answer for ask, answer in zip(promised, again, strict=True)}
    ledger, receipts = system.bank.ledger(), _receipts(system)
    flags = _flags(system)
    looked = len(receipts)
    held = books.unexplained_holds(ledger, receipts, {})
    found = [
        Check("no double charge", looked, books.double_charges(ledger, receipts)),
        Check(
            "receipts equal the bank's books", looked, books.differences(ledger, receipts, flags)
        ),
        Check("cards' balances equal", len(card_of), books.balances(ledger, receipts, card_of)),
        Check("holds explained", looked, books.unexplained_holds(ledger, receipts, flags)),
        Check(
            "answers stand, byte for byte", len(now), books.broken_answers(promised, answers, now)
        ),
        Check("every client has its answer", len(asks), books.without_answer(asks, answers)),
        Check("refusals true", len(asks), books.untrue_refusals(asks, answers, receipts)),
        Check("answers as expected", len(asks), books.unexpected(answers, EXPECTED)),
        Check("no overlap at the bank", _calls(ledger), _overlaps(ledger)),
        Check("each key has an outcome", len(asks), _rows(system, UNANSWERED_KEYS)),
        Check("the log has no holes", looked, _rows(system, HOLES)),
        *_rebuilt(system),
        *_cards(system, answers, search),
    ]
    return Verdict(
        checks=found,
        statuses=Counter(receipt["status"] for receipt in receipts),
        reviews=Counter(reason for reasons in flags.values() for reason in reasons),
        second_holds=len(held),
    )


def _asked_again(system: System, asks: Sequence[Ask]) -> list[Answer | None]:
    """Each key once more, at either API."""
    ports = system.ports

    def again(numbered: tuple[int, Ask]) -> Answer | None:
        number, ask = numbered
        return send(ask, ports[number % len(ports)], PATIENCE_SECONDS)

    return all_at_once(again, enumerate(asks), REPLAY_THREADS)


def _receipts(system: System) -> list[dict[str, Any]]:
    """All of them, as the API shows them."""
    found: list[dict[str, Any]] = []
    after = ""
    while True:
        page = _get(system, f"/v1/receipts?limit={PAGE}{after}")
        found += page["data"]
        if not page["has_more"]:
            return found
        after = f"&starting_after={page['next_cursor']}"


def _get(system: System, path: str) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", system.ports[0], timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {API_KEY}"})
        found: dict[str, Any] = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found


def _flags(system: System) -> dict[str, set[str]]:
    """What operators are shown: the reasons by payment."""
    flags: dict[str, set[str]] = {}
    for row in json.loads(system.command("stuck", "--json")):
        flags.setdefault(row["payment_id"], set()).add(row["reason"])
    return flags


def _calls(ledger: Mapping[str, Any]) -> int:
    return sum(sum(outcomes.values()) for outcomes in ledger["calls"].values())


def _overlaps(ledger: Mapping[str, Any]) -> list[str]:
    overlaps = ledger["overlaps"]
    return [f"{overlaps} calls met another under their own key"] if overlaps else []


def _rows(system: System, query: LiteralString) -> list[str]:
    with psycopg.connect(system.database_url) as connection:
        return [row[0] for row in connection.execute(query)]


def _rebuilt(system: System) -> list[Check]:
    """The read models made again from the log are what they were."""
    found = []
    for name in READ_MODELS:
        before = _dumped(system, name)
        system.command("projections", "rebuild", name)
        changed = before ^ _dumped(system, name)
        said = [f"a row of {name} is another after it: {row[:200]!r}" for row in changed]
        found.append(Check(f"a rebuild of {name} changes nothing", len(before), said))
    return found


def _dumped(system: System, table: str) -> set[bytes]:
    with psycopg.connect(system.database_url, row_factory=dict_row) as connection:
        rows = connection.execute(SQL("SELECT * FROM {}").format(Identifier(table)))
        return {"\n".join(_spelled(it) for it in row.values()).encode() for row in rows}


def _spelled(value: object) -> str:
    """Bytes as what they spell."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _cards(
    system: System, answers: Mapping[str, Sequence[Answer]], search: CanarySearch
) -> list[Check]:
    """No canary card in anything that is kept or was said."""
    with psycopg.connect(system.database_url, autocommit=True) as connection:
        tables = [row[0] for row in connection.execute(TABLES)]
        connection.execute("CHECKPOINT")
    rows = [row for table in tables for row in _dumped(system, table)]
    said = [answer.body for given in answers.values() for answer in given]
    files, logs = system.stored_files(), system.logs()
    return [
        _card_check("tables", len(rows), *_in_texts(search, rows)),
        _card_check("heap and write-ahead log", len(files), *search.in_files(files)),
        _card_check("logs", len(logs), *search.in_files(logs), has_to_see=False),
        _card_check("answers", len(said), *_in_texts(search, said)),
    ]


def _in_texts(search: CanarySearch, texts: Sequence[bytes]) -> tuple[list[str], bool]:
    found = [how for text in texts for how in search.found_in(text)]
    return found, any(search.sees(text) for text in texts)


def _card_check(
    where: str, looked_at: int, found: list[str], seen: bool, *, has_to_see: bool = True
) -> Check:
    if has_to_see and not seen:
        found = [*found, "the search does not even see an order's id there"]
    return Check(f"no card in the {where}", looked_at, found)
