"""Signed notes (C2SP signed-note): a text, an empty line, and a line for each signature; and what
witnesses say of a checkpoint (C2SP tlog-cosignature)."""

import base64
import binascii
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from infrastructure.checkpoint_keys import (
    COSIGNATURE,
    ED25519,
    KEY_ID_BYTES,
    SigningKey,
    VerifierKey,
)

LARGEST_NOTE_BYTES: Final = 100_000
MOST_SIGNATURES: Final = 100
SIGNATURE_LINE: Final = re.compile(r"\N{EM DASH} ([^\s+]+) ([A-Za-z0-9+/=]+)")
CONTROLS: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
TIMESTAMP: Final = struct.Struct(">Q")
SIGNATURE_BYTES: Final = 64


class NoteMalformed(Exception):
    """The text is no signed note. One line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One line: whose it is said to be, and the bytes after the id of the key."""

    name: str
    key_id: bytes
    content: bytes

    @property
    def line(self) -> str:
        """As it stands in a note."""
        content = base64.b64encode(self.key_id + self.content).decode()
        return f"\N{EM DASH} {self.name} {content}\n"

    def is_of(self, key: VerifierKey) -> bool:
        """Whether it says that this key made it."""
        return (self.name, self.key_id) == (key.name, key.key_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A text, which ends with a line feed, and its signatures."""

    text: str
    signatures: Sequence[Signature]

    @property
    def whole(self) -> str:
        """As it is published."""
        return self.text + "\n" + "".join(each.line for each in self.signatures)


def signed(text: str, keys: Sequence[SigningKey]) -> Note:
    """The text, signed with each of the keys."""
    return Note(
        text=text,
        signatures=[
            Signature(
                name=key.verifier.name,
                key_id=key.verifier.key_id,
                content=key.sign(text.encode()),
            )
            for key in keys
        ],
    )


def read_note(whole: str) -> Note:
    """A note, whoever signed it: no signature is looked at. Raises NoteMalformed."""
    if len(whole.encode()) > LARGEST_NOTE_BYTES:
        raise NoteMalformed("it is too long for a signed note")
    text, gap, lines = whole.rpartition("\n\n")
    if not gap or not text or not lines.endswith("\n") or CONTROLS.search(whole):
        raise NoteMalformed("a signed note is a text, an empty line and lines of signatures")
    signatures = [_signature(line) for line in lines[:-1].split("\n")]
    if len(signatures) > MOST_SIGNATURES:
        raise NoteMalformed(f"it has more than {MOST_SIGNATURES} signatures")
    return Note(text=text + "\n", signatures=signatures)


def _signature(line: str) -> Signature:
    match = SIGNATURE_LINE.fullmatch(line)
    try:
        content = b"" if match is None else base64.b64decode(match[2], validate=True)
    except binascii.Error:
        content = b""
    if match is None or len(content) <= KEY_ID_BYTES:
        raise NoteMalformed("a line of a signature is malformed")
    return Signature(name=match[1], key_id=content[:KEY_ID_BYTES], content=content[KEY_ID_BYTES:])


def signers(note: Note, keys: Sequence[VerifierKey]) -> list[VerifierKey]:
    """Those of the keys that signed it."""
    message = note.text.encode()
    return [
        key
        for key in keys
        if key.kind == ED25519
        and any(
            each.is_of(key) and key.has_signed(message, each.content) for each in note.signatures
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """What a witness said: as of `timestamp`, in Unix seconds, it knew of no other history."""

    witness: VerifierKey
    timestamp: int
    signature: Signature


def cosignatures(note: Note, witnesses: Sequence[VerifierKey]) -> list[Cosignature]:
    """The cosignatures of these witnesses that are good; of one of each witness's the last."""
    found = []
    for witness in witnesses:
        for each in reversed(note.signatures):
            timestamp = _cosigned_at(note.text, each, witness)
            if timestamp is not None:
                found.append(Cosignature(witness=witness, timestamp=timestamp, signature=each))
                break
    return found


def _cosigned_at(text: str, signature: Signature, witness: VerifierKey) -> int | None:
    """When, if it is a good one of that witness."""
    is_one = len(signature.content) == TIMESTAMP.size + SIGNATURE_BYTES
    if witness.kind != COSIGNATURE or not is_one or not signature.is_of(witness):
        return None
    (timestamp,) = TIMESTAMP.unpack(signature.content[: TIMESTAMP.size])
    message = cosigned_message(text, timestamp)
    is_good = witness.has_signed(message, signature.content[TIMESTAMP.size :])
    return int(timestamp) if is_good and timestamp < 1 << 63 else None


def cosigned_message(text: str, timestamp: int) -> bytes:
    """What a witness signs."""
    return f"cosignature/v1\ntime {timestamp}\n{text}".encode()
