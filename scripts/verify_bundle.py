"""Verify an audit bundle of a Counterfoil ledger, anywhere: this file alone, Python 3.11 or newer, and the
package `cryptography`.

    python verify_bundle.py FOLDER [--key FILE] [--checkpoint FILE]

It recomputes everything: the hash of each event, its proof of inclusion in the signed head of the log
(RFC 6962), the proofs that each signed head goes on from the one before, the signatures (Ed25519, as C2SP
signed notes), that no version of anything is missing, and that what is posted is what each event moves.
Journals, tables, people and the summary are only held against the signed manifest.

Give the public key that you trust with --key (lines of name+id+key) and the checkpoint that you kept with
--checkpoint: without them it is only shown that the bundle is what its own keys signed. Exit status: 0 if all
of it holds, 1 if anything does not, 2 for wrong arguments.
"""

import argparse
import base64
import binascii
import hashlib
import json
import re
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "counterfoil audit bundle"
VERSION = 1
ED25519 = b"\x01"
MOST_SHOWN = 20
PART = 1 << 20
UNLISTED = {"manifest.json", "manifest.note"}
# Before the name of each key, where the log's checkpoints say which ones sign: one takes another's place.
NAMES_KEY = "counterfoil key "
# What each line has: nothing is in it that is not looked at.
TEXTS = ("event_id", "aggregate", "topic", "at", "state", "cause")
EVENT = dict.fromkeys(("position", "version"), int) | dict.fromkeys(TEXTS, str)
INCLUSION = {"position": int, "hashes": list}
CHECKPOINT = {"size": int, "root": str, "note": (str, type(None)), "to_next": (list, type(None))}
OWNER = ("merchant_id", "mode", "customer_id", "currency")
POSTING = dict.fromkeys(("aggregate", "topic", "at", *OWNER), str) | {
    "version": int,
    "amounts": dict,
}


# A key's name, its id, and itself.
Key = tuple[str, bytes, Ed25519PublicKey]
Row = dict[str, Any]


class Wrong(Exception):
    """Something does not hold. One line."""


CANNOT_BE_READ = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def main(arguments: list[str]) -> int:
    """What is wrong is printed; the exit status says whether anything is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--key", type=Path, help="Public keys that you trust: name+id+key, one a line."
    )
    parser.add_argument("--checkpoint", type=Path, help="A checkpoint that you kept.")
    given = parser.parse_args(arguments)
    if not (given.folder / "manifest.json").is_file():
        parser.error(f"{given.folder} has no manifest.json: it is no bundle")
    try:
        trusted = None if given.key is None else keys_in(given.key)
    except (Wrong, OSError, UnicodeDecodeError) as error:
        parser.error(f"--key {given.key}: {error}")
    report = Report()
    try:
        Bundle(given.folder, report).verify(trusted, given.checkpoint)
    except Wrong as error:
        report.wrong(str(error))
    except CANNOT_BE_READ as error:
        report.wrong(f"the bundle cannot be read: {type(error).__name__}: {error}")
    report.end()
    return 1 if report.count else 0


class Report:
    """What holds and what does not."""

    def __init__(self) -> None:
        self.count = self._before = 0

    def begin(self) -> None:
        """Something else is looked at."""
        self._before = self.count

    def ok(self, says: str) -> None:
        """One thing that holds, where nothing was wrong since this was begun."""
        if self.count == self._before:
            print(f"ok     {says}")

    def wrong(self, says: str) -> None:
        """One thing that does not; the first of them are told, the others counted."""
        self.count += 1
        if self.count <= MOST_SHOWN:
            print(f"WRONG  {says}")

    def end(self) -> None:
        """The verdict."""
        if self.count > MOST_SHOWN:
            print(f"       and {self.count - MOST_SHOWN} more")
        print("The bundle does NOT verify." if self.count else "The bundle verifies.")


class Bundle:
    """A folder with a manifest."""

    def __init__(self, folder: Path, report: Report) -> None:
        self.folder, self.report = folder, report
        refuse_what_is_no_file(folder)
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"), **STRICT)
        if (self.manifest.get("format"), self.manifest.get("version")) != (FORMAT, VERSION):
            raise Wrong("it is no bundle of a version that is known here")
        self.size, self.root = self.manifest["size"], decoded(self.manifest["root"])

    def verify(self, trusted: list[Key] | None, checkpoint_file: Path | None) -> None:
        """All of it. `trusted`: None for the keys of the bundle itself, which anybody can have made."""
        if trusted is None:
            print("note   the keys are the bundle's own: give --key with one that you trust")
            trusted = keys_in(self.folder / "keys.txt")
        keys = self.with_vouched(trusted)
        self.check_manifest(keys)
        self.check_files()
        self.check_head(keys)
        roots = self.check_checkpoints(keys)
        kept = None if checkpoint_file is None else self.kept(checkpoint_file, keys, roots)
        self.check_events(kept)

    # --- keys and signatures -------------------------------------------------------------------

    def with_vouched(self, keys: list[Key]) -> list[Key]:
        """Also the keys that a checkpoint of a trusted one names: one took another's place."""
        rows = lines(self.folder / "checkpoints.jsonl", CHECKPOINT)
        notes = [row["note"] for row in rows if NAMES_KEY in (row["note"] or "")]
        known = {each[:2] for each in keys}
        for _ in notes:
            for note in notes:
                for name in named_keys(note, keys):
                    if name[:2] not in known:
                        known.add(name[:2])
                        keys.append(name)
        return keys

    def check_manifest(self, keys: list[Key]) -> None:
        """That somebody trusted signed the manifest as it is."""
        text, names = signed_text((self.folder / "manifest.note").read_text("utf-8"), keys)
        digest = hashlib.sha256((self.folder / "manifest.json").read_bytes()).hexdigest()
        if text != f"{FORMAT} v{VERSION}\n{digest}\n":
            raise Wrong("the manifest is not the one that was signed")
        self.report.ok(f"the manifest is signed by {names}")

    def check_files(self) -> None:
        """That every file is there as it was written, and no other."""
        self.report.begin()
        listed = self.manifest["files"]
        there = {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        for name in sorted(listed.keys() - there):
            self.report.wrong(f"the file {name} is gone")
        for name in sorted(there - listed.keys() - UNLISTED):
            self.report.wrong(f"the file {name} is not of the bundle")
        for name in sorted(there & listed.keys()):
            path, of = self.folder / name, listed[name]
            if path.stat().st_size != of["bytes"] or file_hash(path) != of["sha256"]:
                self.report.wrong(f"the file {name} is not as it was written")
        self.report.ok(f"{len(listed)} files are as they were written")

    def check_head(self, keys: list[Key]) -> None:
        """The signed head of the log, under which all events are."""
        self.report.begin()
        text, names = signed_text((self.folder / "checkpoint.txt").read_text("utf-8"), keys)
        if checkpoint(text) != (self.manifest["origin"], self.size, self.root):
            raise Wrong("the manifest is of another head of the log than was signed")
        self.report.ok(f"the head of {self.size} events is signed by {names}")

    def check_checkpoints(self, keys: list[Key]) -> dict[int, bytes]:
        """That each goes on from the one before, up to the head; the roots by size."""
        self.report.begin()
        roots: dict[int, bytes] = {}
        proof, before = None, None
        for row in lines(self.folder / "checkpoints.jsonl", CHECKPOINT):
            size, root = row["size"], decoded(row["root"])
            if row["note"] is not None:
                text, _ = signed_text(row["note"], keys)
                if checkpoint(text) != (self.manifest["origin"], size, root):
                    self.report.wrong(f"the checkpoint of {size} events is another than was signed")
            if before is not None and not goes_on(before, size, roots[before], root, proof):
                self.report.wrong(f"the log of {size} events does not go on from that of {before}")
            roots[size], before, proof = root, size, row["to_next"]
        if roots.get(self.size, self.root if self.size == 0 else None) != self.root:
            self.report.wrong("the checkpoints do not lead to the head")
        self.report.ok(f"{len(roots)} signed heads, each going on from the one before")
        return roots

    def kept(
        self, path: Path, keys: list[Key], roots: dict[int, bytes]
    ) -> tuple[int, bytes] | None:
        """The checkpoint that the auditor kept: its size and root, if those are still to be computed."""
        text, names = signed_text(path.read_text(encoding="utf-8"), keys)
        origin, size, root = checkpoint(text)
        if origin != self.manifest["origin"]:
            raise Wrong(f"the checkpoint that you kept is of another log, {origin}")
        if size > self.size:
            raise Wrong(
                f"the checkpoint that you kept is of {size} events, the bundle's head of {self.size}"
            )
        if size in roots:
            if roots[size] != root:
                raise Wrong(
                    "the log is not the one of the checkpoint that you kept: it was rewritten"
                )
            self.report.ok(
                f"the log goes on from the checkpoint that you kept ({size} events, {names})"
            )
            return None
        if not self.manifest["is_whole_log"]:
            raise Wrong(
                f"the bundle has no proof from a log of {size} events: ask for one that was made with "
                "`counterfoil export --checkpoint FILE`"
            )
        return size, root

    # --- events --------------------------------------------------------------------------------

    def check_events(self, kept: tuple[int, bytes] | None) -> None:
        """Each one's proof, its version, and what it moves."""
        self.report.begin()
        versions: dict[bytes, int] = {}
        tree = Tree()
        books = Books(self.manifest, self.report, self.folder / "postings.jsonl")
        is_whole, count, begun = self.manifest["is_whole_log"], 0, 0
        proofs = lines(self.folder / "inclusion.jsonl", INCLUSION)
        for event in lines(self.folder / "events.jsonl", EVENT):
            place = (
                f"{event['aggregate']} version {event['version']} (position {event['position']})"
            )
            leaf = leaf_hash(event)
            row = next(proofs, None)
            if row is None or row["position"] != event["position"]:
                raise Wrong(f"{place} has no proof")
            if not is_included(leaf, event["position"], self.size, row["hashes"], self.root):
                self.report.wrong(f"{place} is not the event that was sealed there")
            if is_whole:
                self.check_place(event, count)
                tree.add(leaf)
                if kept is not None and kept[0] == tree.size and tree.root() != kept[1]:
                    raise Wrong(
                        "the log is not the one of the checkpoint that you kept: it was rewritten"
                    )
            self.check_version(event, versions, place)
            books.take_in(event, place)
            count += 1
            begun += event["version"] == 1
        there_were = (self.manifest["events"], self.manifest["begun"])
        if (count, begun) != there_were or next(proofs, None) is not None:
            self.report.wrong(
                f"{count} events, {begun} of them firsts, where there were {there_were}"
            )
        if is_whole and (tree.size, tree.root()) != (self.size, self.root):
            self.report.wrong("the whole log has another root than was signed")
        if kept is not None:
            self.report.ok(f"the log goes on from the checkpoint that you kept ({kept[0]} events)")
        self.report.ok(f"{count} events of {len(versions)} payments and other things, each proven")
        books.end()

    def check_place(self, event: Row, expected: int) -> None:
        """In a whole log, every position once and in order."""
        if event["position"] != expected:
            self.report.wrong(f"position {expected} is missing or twice")

    def check_version(self, event: Row, versions: dict[bytes, int], place: str) -> None:
        """None is missing: from the first on, or, of a part of time, from the first that is in it."""
        aggregate = bytes.fromhex(event["aggregate"].replace("-", ""))
        before = versions.get(aggregate)
        first = event["version"] if not self.manifest["has_whole_histories"] else 1
        if event["version"] != (first if before is None else before + 1):
            self.report.wrong(f"{place} does not follow the version before it")
        versions[aggregate] = event["version"]
        since, until = (self.manifest["selection"][name] for name in ("from", "to"))
        if (since or "") > event["at"] or (until or "~") <= event["at"]:
            self.report.wrong(f"{place} is not of the time that was asked for")
        if json.loads(event["state"]).get("at") != event["at"]:
            self.report.wrong(f"{place} has another time than the one that it was recorded with")


# --- what events move ----------------------------------------------------------------------------


class Books:
    """The postings that come with the events, against what the events of payments say."""

    def __init__(self, manifest: Row, report: Report, path: Path) -> None:
        self.manifest, self.report = manifest, report
        self.sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.postings: dict[bytes, bytes] = {}
        self.payments: dict[bytes, Payment] = {}
        for row in lines(path, POSTING):
            amounts, place = row["amounts"], f"{row['aggregate']} version {row['version']}"
            if any(type(amount) is not int for amount in amounts.values()) or sum(amounts.values()):
                report.wrong(f"what {place} moves does not sum to zero")
            self.sums[row["currency"]].update(amounts)
            if key_of(row) in self.postings:
                report.wrong(f"{place} is posted twice")
            terms = [row[name] for name in OWNER]
            self.postings[key_of(row)] = said(row["topic"], terms, amounts)
        self.count = len(self.postings)

    def take_in(self, event: Row, place: str) -> None:
        """The next event: what it moves by its own words must be what is posted, and nothing else."""
        posted = self.postings.pop(key_of(event), None)
        payment = None
        if event["topic"].startswith("payment."):
            payment = self.payment_of(event)
            if payment is None:
                return  # it began before what the bundle has, and cannot be held against anything
        amounts = {} if payment is None else payment.moved(event)
        wanted = said(event["topic"], payment.terms, amounts) if payment and amounts else None
        if wanted != posted:
            self.report.wrong(f"{place} moves {amounts or 'nothing'}, and something else is posted")

    def payment_of(self, event: Row) -> "Payment | None":
        """The one that it goes on, or begins."""
        aggregate = key_of(event)[:16]
        if event["version"] == 1:
            self.payments[aggregate] = Payment(json.loads(event["state"]))
        return self.payments.get(aggregate)

    def end(self) -> None:
        """The sums."""
        if self.postings:
            self.report.wrong(f"{len(self.postings)} postings are of no event of the bundle")
        told = {currency: dict(sums) for currency, sums in self.sums.items()}
        if told != self.manifest["postings"]:
            self.report.wrong(f"the postings sum to {told}, not to {self.manifest['postings']}")
        for currency, sums in sorted(told.items()):
            if sum(sums.values()) != 0:
                self.report.wrong(f"the postings in {currency} do not sum to zero")
            amounts = ", ".join(f"{name} {amount}" for name, amount in sorted(sums.items()))
            self.report.ok(f"{currency}, in minor units: {amounts}")
        self.report.ok(f"{self.count} postings, each summing to zero, and all together")


class Payment:
    """What has to be known of one, to say what its events move."""

    __slots__ = ("asked", "disputed", "is_held", "terms", "whole")

    def __init__(self, first: Row) -> None:
        self.terms = [first[name] or "" for name in OWNER]
        self.whole, self.asked, self.is_held = first["amount_minor"], 0, False
        self.disputed: dict[str, int] | None = None

    def moved(self, event: Row) -> dict[str, int]:
        """By account, with the other side of it. Nothing: it moves nothing."""
        moved: dict[str, int] = {}
        state = json.loads(event["state"])
        match event["topic"].removeprefix("payment."):
            case "capture_requested" | "refund_requested":
                self.asked = state["amount_minor"]
            case "authorized":
                self.is_held, moved = True, {"held": self.whole}
            case "captured":
                moved = {"held": -self.whole, "captured": self.asked}
            case "transferred":
                moved = {"captured": self.whole}
            case "refunded":
                moved = {"refunded": -self.asked}
            case "voided" | "expired" if self.is_held:
                moved = {"held": -self.whole}
            case "dispute_opened":
                self.disputed = {
                    **(self.disputed or {}),
                    state["dispute_id"]: state["amount_minor"],
                }
                moved = {"disputed": -state["amount_minor"]}
            case "dispute_won":
                moved = {"disputed": (self.disputed or {})[state["dispute_id"]]}
            case _:
                pass
        return moved and {**moved, "cardholder": -sum(moved.values())}


def key_of(row: Row) -> bytes:
    """What it is of, and which version, in few bytes."""
    return bytes.fromhex(row["aggregate"].replace("-", "")) + struct.pack(">Q", row["version"])


def said(topic: str, terms: list[str], amounts: dict[str, int]) -> bytes:
    """All of a posting, in few bytes; an account that it moves nothing into is as if it were not there."""
    moved = sorted((name, amount) for name, amount in amounts.items() if amount)
    return hashlib.sha256(json.dumps([topic, terms, moved]).encode()).digest()[:16]


# --- the tree (RFC 6962) -------------------------------------------------------------------------


def leaf_hash(event: Row) -> bytes:
    """Of the bytes that an event has in the tree: a line that names the form, then each field after its
    length in four bytes."""
    fields = (
        str(event["position"]),
        event["event_id"],
        event["aggregate"],
        str(event["version"]),
        event["topic"],
        event["at"],
        event["state"],
        event["cause"],
    )
    leaf = b"counterfoil event v1\n"
    for field in fields:
        content = field.encode()
        leaf += struct.pack(">I", len(content)) + content
    return hashlib.sha256(b"\x00" + leaf).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Two parts of the tree that lie beside one another."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Tree:
    """The root over leaves that come one after the other."""

    def __init__(self) -> None:
        self.size = 0
        self.parts: list[bytes] = []

    def add(self, leaf: bytes) -> None:
        """The next leaf."""
        self.parts.append(leaf)
        self.size += 1
        size = self.size
        while size % 2 == 0:
            right = self.parts.pop()
            self.parts.append(node(self.parts.pop(), right))
            size //= 2

    def root(self) -> bytes:
        """Over all leaves so far."""
        if not self.parts:
            return hashlib.sha256(b"").digest()
        root = self.parts[-1]
        for part in reversed(self.parts[:-1]):
            root = node(part, root)
        return root


def is_included(leaf: bytes, position: int, size: int, proof: list[str], root: bytes) -> bool:
    """RFC 9162, 2.1.3.2."""
    if not 0 <= position < size:
        return False
    fn, sn, found = position, size - 1, leaf
    for each in map(decoded, proof):
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            found = node(each, found)
            while fn % 2 == 0 and fn:
                fn, sn = fn // 2, sn // 2
        else:
            found = node(found, each)
        fn, sn = fn // 2, sn // 2
    return sn == 0 and found == root


def goes_on(old: int, new: int, old_root: bytes, new_root: bytes, proof: list[str] | None) -> bool:
    """RFC 9162, 2.1.4.2."""
    if not 0 < old < new or proof is None:
        return False
    hashes = [decoded(each) for each in proof]
    if old & (old - 1) == 0:
        hashes.insert(0, old_root)
    if not hashes:
        return False
    fn, sn = old - 1, new - 1
    while fn % 2:
        fn, sn = fn // 2, sn // 2
    fr = sr = hashes[0]
    for each in hashes[1:]:
        if sn == 0:
            return False
        if fn % 2 or fn == sn:
            fr, sr = node(each, fr), node(each, sr)
            while fn % 2 == 0 and fn:
                fn, sn = fn // 2, sn // 2
        else:
            sr = node(sr, each)
        fn, sn = fn // 2, sn // 2
    return sn == 0 and (fr, sr) == (old_root, new_root)


# --- signed notes (C2SP) -------------------------------------------------------------------------


def keys_in(path: Path) -> list[Key]:
    """The public keys of a file."""
    keys = [key(line) for line in path.read_text(encoding="utf-8").split()]
    if not keys:
        raise Wrong("there is no key in it")
    return keys


def key(text: str) -> Key:
    """A public key, written name+id+key."""
    match = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)", text)
    content = b"" if match is None else decoded(match[3])
    if match is None or len(content) != 33 or content[:1] != ED25519:
        raise Wrong(f"{text} is no public key of a log")
    key_id = hashlib.sha256(match[1].encode() + b"\n" + content).digest()[:4]
    if key_id.hex() != match[2]:
        raise Wrong(f"the key {text} is damaged: its id is another's")
    return match[1], key_id, Ed25519PublicKey.from_public_bytes(content[1:])


def signed_text(note: str, keys: list[Key]) -> tuple[str, str]:
    """The text, and the names of the keys that signed it. Raises Wrong where none of them did."""
    before, gap, signatures = note.rpartition("\n\n")
    text = before + "\n"
    names = []
    signed = signatures.removesuffix("\n").split("\n")
    if len(set(signed)) != len(signed):
        raise Wrong("a signed note has a signature twice")
    for line in signed:
        parts = line.split(" ")
        if not gap or len(parts) != 3 or parts[0] != "\N{EM DASH}":
            raise Wrong("a signed note is malformed")
        content = decoded(parts[2])
        for name, key_id, public in keys:
            if (name, key_id) == (parts[1], content[:4]) and has_signed(public, content[4:], text):
                names.append(name)
    if not names:
        raise Wrong(f"no trusted key has signed this: {text.splitlines()[:2]}")
    return text, " and ".join(sorted(set(names)))


def named_keys(note: str, keys: list[Key]) -> list[Key]:
    """The keys that the checkpoint names, if one of these has signed it."""
    try:
        text, _ = signed_text(note, keys)
    except Wrong:
        return []
    named = (line for line in text.splitlines()[3:] if line.startswith(NAMES_KEY))
    return [key(line.removeprefix(NAMES_KEY)) for line in named]


def has_signed(public: Ed25519PublicKey, signature: bytes, text: str) -> bool:
    """Whether it is the key's signature of the text."""
    try:
        public.verify(signature, text.encode())
    except InvalidSignature:
        return False
    return True


def checkpoint(text: str) -> tuple[str, int, bytes]:
    """What a head says: the log's name, the number of its events, and the root."""
    parts = text.split("\n")
    if len(parts) < 4 or not re.fullmatch("0|[1-9][0-9]{0,18}", parts[1], re.ASCII):
        raise Wrong("a checkpoint is malformed")
    return parts[0], int(parts[1]), decoded(parts[2])


# --- files ---------------------------------------------------------------------------------------


def refuse_what_is_no_file(folder: Path) -> None:
    """What a name leads to elsewhere, or has no end, is nothing that was written into a bundle."""
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Wrong(f"{path.relative_to(folder).as_posix()} is no file")


def lines(path: Path, fields: Row) -> Iterator[Row]:
    """The rows of a file, one at a time, each with these fields and no other."""
    with path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, 1):
            row = json.loads(line, **STRICT)
            if type(row) is not dict or row.keys() != fields.keys():
                raise Wrong(f"line {number} of {path.name} has other fields than it must have")
            for name, kind in fields.items():
                if type(row[name]) is bool or not isinstance(row[name], kind):
                    raise Wrong(f"line {number} of {path.name}: {name} is of another kind")
            yield row


def each_once(pairs: list[tuple[str, Any]]) -> Row:
    """An object, none of whose fields is there twice, since readers differ in which one they take."""
    row = dict(pairs)
    if len(row) != len(pairs):
        raise Wrong("a field is there twice in one line")
    return row


def no_such_number(text: str) -> None:
    """NaN and the like, which are no JSON."""
    raise Wrong(f"{text} is no number")


STRICT: Row = {"object_pairs_hook": each_once, "parse_constant": no_such_number}


def file_hash(path: Path) -> str:
    """SHA-256, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            digest.update(part)
    return digest.hexdigest()


def decoded(text: str) -> bytes:
    """Base64. Raises Wrong."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise Wrong(f"{text!r} is no base64") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
