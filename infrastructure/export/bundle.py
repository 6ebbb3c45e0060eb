"""A signed bundle: events, proofs, checkpoints and keys in one folder, which verifies without us.

It is written into a folder beside the one that was asked for, which takes its name when it is whole: there
is never half a bundle. Nothing in it is held in memory but the page that is being written.
"""

import base64
import hashlib
import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, LiteralString, TextIO
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow, dict_row, tuple_row

from domain.evidence import Checkpoint, read_checkpoint
from domain.ids import Prefix, encode
from domain.money import in_major_units
from domain.payment import rfc3339
from infrastructure.audit import notes
from infrastructure.audit.checkpoints import Signed, known_keys
from infrastructure.audit.log import LoggedEvent
from infrastructure.checkpoint_keys import SigningKey, VerifierKey
from infrastructure.export import tables
from infrastructure.export.journals import JOURNALS
from infrastructure.export.proofs import Proofs
from infrastructure.export.selection import Posting, Selected, Selection
from infrastructure.shards import shard_of

FORMAT: Final = "counterfoil audit bundle"
VERSION: Final = 1
MANIFEST: Final = "manifest.json"
MANIFEST_NOTE: Final = "manifest.note"
MOST_CHECKPOINTS: Final = 10_000
HASHED_AT_ONCE: Final = 1 << 20

# One of each size: the one that names keys, or that was signed last. Of more than a bundle takes, some of
# all times.
CHECKPOINTS: Final[LiteralString] = """
    WITH sizes AS (
        SELECT DISTINCT ON (size) size, note, keys FROM audit_checkpoints
        WHERE size <= %(size)s AND size > 0 ORDER BY size, cardinality(keys) DESC, number DESC
    ), numbered AS (
        SELECT size, note, row_number() OVER (ORDER BY size) AS place, count(*) OVER () AS many,
               cardinality(keys) > 1
               AND row_number() OVER (PARTITION BY keys ORDER BY size) = 1 AS names_keys
        FROM sizes
    )
    SELECT size, note FROM numbered
    WHERE place = many OR place %% (1 + many / %(most)s) = 0 OR size = ANY (%(kept)s) OR names_keys
    ORDER BY size
"""
PEOPLE: Final[LiteralString] = """
    SELECT (
        SELECT document FROM personal_data WHERE shard = %(shard)s AND owner = %(owner)s
    ) AS document, EXISTS (
        SELECT FROM events WHERE shard = %(shard)s AND originator_id = %(owner)s
          AND topic = ANY (%(erasing)s)
    ) AS is_erased
"""

Progress = Callable[[int, int], None]


class OutNotEmpty(Exception):
    """Something is there already. One line that says what."""


class CheckpointNotOurs(Exception):
    """What somebody kept is of another log than this one. One line that says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a bundle is to have. `kept`: checkpoints that somebody has, to which it shall be proven that
    the log goes on from them."""

    out: Path
    selection: Selection
    journals: Sequence[str] = ()
    with_tables: bool = False
    with_personal_data: bool = False
    kept: Sequence[Checkpoint] = ()


@dataclass(slots=True)
class Counted:
    """What a bundle has."""

    events: int = 0
    begun: int = 0
    topics: Counter[str] = field(default_factory=Counter)
    first: str | None = None
    last: str | None = None
    sums: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    postings: int = 0


def export(
    database_url: str,
    order: Order,
    head: Signed,
    keys: Sequence[SigningKey],
    progress: Progress,
) -> dict[str, Any]:
    """Writes the bundle of what is under `head`, and says what is in it: the manifest. Raises
    OutNotEmpty, NothingSelected, CheckpointNotOurs, TablesUnavailable."""
    if order.with_tables:
        tables.refuse_if_unavailable()
    with (
        _new_folder(order.out) as folder,
        psycopg.connect(database_url, row_factory=dict_row) as connection,
        psycopg.connect(database_url, row_factory=tuple_row, autocommit=True) as for_proofs,
    ):
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT set_config('timezone', 'UTC', true)")
        bundle = Bundle(folder, order, head, connection, Proofs(for_proofs, head.size))
        return bundle.write(keys, progress)


class Bundle:
    """One that is being written into a folder."""

    def __init__(
        self,
        folder: Path,
        order: Order,
        head: Signed,
        connection: Connection[DictRow],
        proofs: Proofs,
    ) -> None:
        self._folder, self._order, self._head = folder, order, head
        self._connection, self._proofs = connection, proofs
        self._selected = Selected(connection, order.selection, head.size)
        self._counted = Counted()

    def write(self, keys: Sequence[SigningKey], progress: Progress) -> dict[str, Any]:
        """All of it; the manifest."""
        self._write_events(progress)
        self._write_postings()
        self._write_checkpoints()
        self._write_people()
        self._write_keys([each for each, _, _ in known_keys(self._connection)])
        if self._order.with_tables:
            tables.write(self._folder)
        self._text("summary.txt").write_text(self._summary(), encoding="utf-8")
        return self._sign(keys)

    # --- events and proofs ---------------------------------------------------------------------

    def _write_events(self, progress: Progress) -> None:
        counted, of = self._counted, self._head.size
        with self._opened("events.jsonl") as events, self._opened("inclusion.jsonl") as inclusion:
            for event in self._selected.events():
                assert event.position is not None, "a checkpoint covers it"
                _line(events, _event(event))
                proof = [_base64(each) for each in self._proofs.inclusion(event.position)]
                _line(inclusion, {"position": event.position, "hashes": proof})
                counted.events += 1
                counted.topics[event.topic] += 1
                counted.first = min(counted.first or event.at, event.at)
                counted.last = max(counted.last or event.at, event.at)
                counted.begun += event.version == 1
                if counted.events % 1_000 == 0:
                    progress(min(counted.events, of), of)

    # --- postings ------------------------------------------------------------------------------

    def _write_postings(self) -> None:
        files = [JOURNALS[name] for name in self._order.journals]
        with ExitStack() as opened:
            out = opened.enter_context(self._opened("postings.jsonl"))
            journals = [each(opened.enter_context(self._opened(each.file_name))) for each in files]
            for posting in self._selected.postings():
                self._counted.postings += 1
                self._counted.sums[posting.currency].update(posting.amounts)
                _line(out, _posting(posting))
                for journal in journals:
                    journal.add(posting)
            for journal in journals:
                journal.end()

    # --- checkpoints and keys ------------------------------------------------------------------

    def _write_checkpoints(self) -> None:
        """Each with the proof that the next one goes on from it; the last is the head."""
        self._text("checkpoint.txt").write_text(self._head.whole, encoding="utf-8")
        kept = {each.size: each for each in self._order.kept}
        for each in kept.values():
            self._refuse_other(each)
        parameters = {"size": self._head.size, "most": MOST_CHECKPOINTS, "kept": list(kept)}
        signed = {row["size"]: row["note"] for row in self._rows(CHECKPOINTS, parameters)}
        sizes = sorted((signed.keys() | kept.keys()) - {0})
        with self._opened("checkpoints.jsonl") as out:
            for size, following in zip(sizes, [*sizes[1:], None], strict=True):
                hashes = None if following is None else self._proofs.consistency(size, following)
                proof = None if hashes is None else [_base64(each) for each in hashes]
                root = _base64(self._proofs.root_at(size))
                row = {"size": size, "root": root, "note": signed.get(size), "to_next": proof}
                _line(out, row)

    def _refuse_other(self, kept: Checkpoint) -> None:
        head = read_checkpoint(notes.read_note(self._head.note).text)
        if kept.origin != head.origin:
            raise CheckpointNotOurs(f"it is of {kept.origin}, and this log is {head.origin}")
        if kept.size > head.size:
            raise CheckpointNotOurs(f"it is of {kept.size} events, and this log has {head.size}")
        if self._proofs.root_at(kept.size) != kept.root:
            raise CheckpointNotOurs(f"this log had another root when it had {kept.size} events")

    def _write_keys(self, keys: Sequence[VerifierKey]) -> None:
        text = "".join(f"{key.text}\n" for key in keys)
        self._text("keys.txt").write_text(text, encoding="utf-8")

    # --- people --------------------------------------------------------------------------------

    def _write_people(self) -> None:
        """Of each customer, and of what else has people's data: whether it is kept or was erased. What it
        is, only where that was asked for."""
        with self._opened("people.jsonl") as out:
            for aggregate in self._first_of_those_with_people():
                identity = {"shard": shard_of(aggregate), "owner": aggregate, "erasing": ERASING}
                row = self._connection.execute(PEOPLE, identity).fetchone()
                assert row is not None, "it is of no table"
                state = "kept" if row["document"] is not None else "none"
                if state == "none" and row["is_erased"]:
                    state = "erased"
                told: dict[str, Any] = {"aggregate": str(aggregate), "personal_data": state}
                if state == "kept" and self._order.with_personal_data:
                    told["document"] = row["document"]
                _line(out, told)

    def _first_of_those_with_people(self) -> Iterator[UUID]:
        with (self._folder / "events.jsonl").open(encoding="utf-8") as events:
            for line in events:
                event = json.loads(line)
                if event["version"] == 1 and event["topic"].startswith(HAVE_PEOPLE):
                    yield UUID(event["aggregate"])

    # --- the manifest --------------------------------------------------------------------------

    def _sign(self, keys: Sequence[SigningKey]) -> dict[str, Any]:
        manifest = self._manifest()
        text = json.dumps(manifest, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        self._text(MANIFEST).write_text(text, encoding="utf-8")
        digest = hashlib.sha256(text.encode()).hexdigest()
        note = notes.signed(f"{FORMAT} v{VERSION}\n{digest}\n", keys)
        self._text(MANIFEST_NOTE).write_text(note.whole, encoding="utf-8")
        return manifest

    def _manifest(self) -> dict[str, Any]:
        selection, head = self._order.selection, self._head
        return {
            "format": FORMAT,
            "version": VERSION,
            "created_at": rfc3339(datetime.now(UTC)),
            "origin": read_checkpoint(notes.read_note(head.note).text).origin,
            "size": head.size,
            "root": _base64(head.root),
            "selection": {
                "from": None if selection.since is None else rfc3339(selection.since),
                "to": None if selection.until is None else rfc3339(selection.until),
                "payment": _payment(selection.payment),
                "customer": selection.customer,
            },
            "is_whole_log": selection.is_whole,
            "has_whole_histories": selection.has_whole_histories,
            "events": self._counted.events,
            "begun": self._counted.begun,
            "postings": {
                currency: dict(sorted(sums.items()))
                for currency, sums in sorted(self._counted.sums.items())
            },
            "files": {
                path.relative_to(self._folder).as_posix(): _file(path)
                for path in sorted(self._folder.rglob("*"))
                if path.is_file()
            },
        }

    def _summary(self) -> str:
        counted, selection = self._counted, self._order.selection
        wanted = {
            "from": selection.since,
            "to": selection.until,
            "payment": _payment(selection.payment),
            "customer": selection.customer,
        }
        told = ", ".join(f"{name} {value}" for name, value in wanted.items() if value is not None)
        lines = [
            "An audit bundle of a Counterfoil ledger",
            "",
            f"What is in it    {told or 'the whole log'}",
            f"Events           {counted.events}",
            f"Recorded         {counted.first or '-'} to {counted.last or '-'}",
            f"Signed head      {self._head.size} events, root {_base64(self._head.root)}",
            "",
            "Events by type",
            *(f"  {number:>10}  {topic}" for topic, number in sorted(counted.topics.items())),
            "",
            f"Postings         {counted.postings}; each of them, and all together, sum to zero",
            *(
                f"  {in_major_units(amount, currency):>18} {currency}  {account}"
                for currency, sums in sorted(counted.sums.items())
                for account, amount in sums.items()
            ),
            "",
            "Verify it with `python verify_bundle.py FOLDER --key YOUR_KEY --checkpoint YOUR_CHECKPOINT`,",
            "the key and a checkpoint being those that you kept, and not those that came with it.",
        ]
        return "\n".join(lines) + "\n"

    # --- files ---------------------------------------------------------------------------------

    def _opened(self, name: str) -> Any:
        return (self._folder / name).open("w", encoding="utf-8", newline="\n")

    def _text(self, name: str) -> Path:
        return self._folder / name

    def _rows(self, query: LiteralString, parameters: dict[str, Any]) -> Iterator[DictRow]:
        with self._connection.cursor(name="rows") as cursor:
            cursor.itersize = 1_000
            yield from cursor.execute(query, parameters)


# Whose personal data is kept apart from the log, and what says that it was erased.
HAVE_PEOPLE: Final = ("customer.", "payment_method.", "payment_intent.")
ERASING: Final = ["customer.deleted", "payment_method.detached"]


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Beside the one that was asked for, whose name it has at the end. Raises OutNotEmpty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutNotEmpty(f"{out} is not an empty folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield folder
        try:
            folder.rename(out)
        except OSError as error:
            raise OutNotEmpty(f"{out} is not an empty folder any more") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _line(out: TextIO, row: dict[str, Any]) -> None:
    out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")


def _event(event: LoggedEvent) -> dict[str, Any]:
    """State and cause as texts: their very bytes are what is hashed."""
    return {
        "position": event.position,
        "event_id": str(event.event_id),
        "aggregate": str(event.aggregate),
        "version": event.version,
        "topic": event.topic,
        "at": event.at,
        "state": event.state.decode(),
        "cause": event.cause,
    }


def _posting(posting: Posting) -> dict[str, Any]:
    return {
        "aggregate": str(posting.aggregate),
        "version": posting.version,
        "topic": posting.topic,
        "at": rfc3339(posting.at),
        "merchant_id": posting.merchant_id,
        "mode": posting.mode,
        "customer_id": posting.customer_id,
        "currency": posting.currency,
        "amounts": posting.amounts,
    }


def _payment(payment: UUID | None) -> str | None:
    return None if payment is None else encode(Prefix.PAYMENT, payment)


def _file(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(HASHED_AT_ONCE):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _base64(text: bytes) -> str:
    return base64.b64encode(text).decode()
