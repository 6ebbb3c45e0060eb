"""Checkpoints go on from one another, or are not signed; who signed each is known for ever."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, LiteralString

import psycopg
import pytest

from domain.evidence import EMPTY_ROOT, read_checkpoint
from infrastructure.audit.checkpoints import (
    CosignatureRefused,
    SigningRefused,
    known_keys,
    last,
    newest,
)
from infrastructure.audit.notes import read_note, signers
from infrastructure.checkpoint_keys import VerifierKey, new_signing_key, signing_keys
from infrastructure.database import Pool
from tests.audit.a_sealed_log import (
    ORIGIN,
    SealedLog,
    a_witness,
    audit_settings,
    cosigned,
    signature_lines,
)

# As whoever owns the database can, past every trigger.
FLIP_A_LEAF: Final[LiteralString] = """
    UPDATE audit_tiles SET hashes = set_byte(hashes, 3, get_byte(hashes, 3) # 1) WHERE level = 0
"""
OTHER_ROOT: Final[LiteralString] = """
    UPDATE audit_checkpoints SET root = sha256(root)
"""
OTHER_TEXT: Final[LiteralString] = """
    UPDATE audit_checkpoints SET root = sha256(root), note = replace(
        note, encode(root, 'base64'), encode(sha256(root), 'base64')
    )
"""
SHORTER: Final[LiteralString] = """
    UPDATE audit_tree SET size = size - 2
"""
FORGET: Final[LiteralString] = "DELETE FROM audit_checkpoints"
NOW: Final = 1_700_000_000


def tampered(database_url: str, statement: LiteralString) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement)


def with_settings(log: SealedLog, **environ: str) -> SealedLog:
    """The same log, on a process that is started anew with these."""
    return SealedLog(log.pool, audit_settings(log.settings.data_dir, **environ))


def test_a_checkpoint_is_a_note_that_the_key_has_signed(log: SealedLog) -> None:
    log.append(1)

    signed = log.signed()

    note = read_note(signed.whole)
    checkpoint = read_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, 2, signed.root)
    with log.pool.connection() as connection:
        assert [key.text for key in signers(note, keys_of(log))] == list(signed.keys)
        assert last(connection) == signed


def keys_of(log: SealedLog) -> list[VerifierKey]:
    with log.pool.connection() as connection:
        return [key for key, _, _ in known_keys(connection)]


def test_the_empty_log_has_a_checkpoint_too(log: SealedLog) -> None:
    signed = log.signed()

    assert (signed.size, signed.root) == (0, EMPTY_ROOT)
    assert log.signed() == signed
    log.append(1)
    assert log.signed().size == 2


def test_nothing_is_signed_twice_for_nothing(log: SealedLog) -> None:
    log.append(1)

    assert log.signed() == log.signed() == with_settings(log).signed()


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (FLIP_A_LEAF, "another root when it had 4"),
        (OTHER_ROOT, "not what was signed"),
        (OTHER_TEXT, "not signed by us"),
        (SHORTER, "2 leaves, of which 4 were signed"),
    ],
)
@pytest.mark.parametrize("grows", [False, True])
def test_what_does_not_go_on_from_the_last_checkpoint_is_not_signed(
    log: SealedLog, database_url: str, statement: LiteralString, words: str, grows: bool
) -> None:
    log.append(2)
    before = log.signed()
    tampered(database_url, statement)
    if grows and statement is not SHORTER:
        log.append(1)

    for sealing in (log.sealing, with_settings(log).sealing):
        with pytest.raises(SigningRefused, match=words):
            sealing.seal_and_sign()

    with log.pool.connection() as connection:
        assert [each.number for each in newest(connection, 10)] == [before.number]


def test_who_signed_remembers_what_whatever_the_database_says(
    log: SealedLog, database_url: str
) -> None:
    log.append(2)
    log.signed()
    tampered(database_url, FLIP_A_LEAF)
    tampered(database_url, FORGET)

    with pytest.raises(SigningRefused, match="another root"):
        log.signed()


def test_a_worker_that_may_not_sign_says_so_and_goes_on(log: SealedLog, database_url: str) -> None:
    log.append(2)
    log.signed()
    tampered(database_url, FLIP_A_LEAF)
    log.append(1)
    sealing = with_settings(log, CHECKPOINT_EVERY_SECONDS="1").sealing

    assert not sealing.step()
    assert not sealing.step()

    with log.pool.connection() as connection:
        assert len(newest(connection, 10)) == 1


def test_a_worker_signs_what_it_sealed(log: SealedLog) -> None:
    log.append(2)
    sealing = with_settings(log, CHECKPOINT_EVERY_SECONDS="0.001").sealing

    assert sealing.step()

    with log.pool.connection() as connection:
        (signed,) = newest(connection, 10)
    assert signed.size == 4


def test_the_origin_stays_whatever_is_set_later(log: SealedLog) -> None:
    first = log.signed()
    log.append(1)

    second = with_settings(log, CHECKPOINT_ORIGIN="another.example").signed()

    assert second.note.startswith(ORIGIN + "\n2\n")
    assert first.note.startswith(ORIGIN + "\n0\n")


# --- keys ---------------------------------------------------------------------------------------


def test_while_a_key_takes_anothers_place_both_sign_and_the_old_one_stays_known(
    log: SealedLog,
) -> None:
    old, new = new_signing_key("log.example/old"), new_signing_key("log.example/new")
    at_first = with_settings(log, CHECKPOINT_KEY=old).signed()
    between = with_settings(log, CHECKPOINT_KEY=f"{new},{old}").signed()
    at_last = with_settings(log, CHECKPOINT_KEY=new).signed()

    old_vkey, new_vkey = (signing_keys(key)[0].verifier.text for key in (old, new))
    assert [list(each.keys) for each in (at_first, between, at_last)] == [
        [old_vkey],
        [new_vkey, old_vkey],
        [new_vkey],
    ]
    assert [len(signature_lines(each.whole)) for each in (at_first, between, at_last)] == [1, 2, 1]
    with log.pool.connection() as connection:
        assert {key.text for key, _, _ in known_keys(connection)} == {old_vkey, new_vkey}


def test_a_kept_key_is_made_once(log: SealedLog, tmp_path: Path) -> None:
    first = log.signed()
    log.append(1)

    assert with_settings(log).signed().keys == first.keys
    assert (tmp_path / "checkpoint.key").stat().st_mode & 0o777 == 0o600


# --- witnesses ----------------------------------------------------------------------------------


def test_cosignatures_of_known_witnesses_are_kept_the_newest_of_each(log: SealedLog) -> None:
    (one, one_secret), (two, two_secret) = a_witness("w.example/1"), a_witness("w.example/2")
    stranger, stranger_secret = a_witness("stranger.example")
    log = with_settings(log, CHECKPOINT_WITNESSES=f"{one.text},{two.text}")
    note = log.signed().note

    newer = cosigned(note, one, one_secret, NOW + 1)
    with_stranger = cosigned(newer, stranger, stranger_secret, NOW)
    assert log.cosign(cosigned(with_stranger, two, two_secret, NOW)) == [one.name, two.name]
    assert log.cosign(cosigned(note, one, one_secret, NOW)) == [one.name]

    with log.pool.connection() as connection:
        found = last(connection)
    assert found is not None
    assert found.whole == cosigned(newer, two, two_secret, NOW)
    assert signers(read_note(found.whole), keys_of(log))


def test_what_no_known_witness_said_of_our_checkpoint_is_refused(
    log: SealedLog, pool: Pool, tmp_path: Path
) -> None:
    witness, secret = a_witness()
    stranger, stranger_secret = a_witness("stranger.example")
    log = with_settings(log, CHECKPOINT_WITNESSES=witness.text)
    note = log.signed().note
    good = cosigned(note, witness, secret, NOW)
    far = int(datetime.now(UTC).timestamp()) + 3600

    for wrong, words in (
        (note, "no witness"),
        (cosigned(note, stranger, stranger_secret, NOW), "no witness"),
        (cosigned(note, witness, stranger_secret, NOW), "no witness"),
        (cosigned(note, witness, secret, far), "in the future"),
        (cosigned(note.replace("\n0\n", "\n1\n"), witness, secret, NOW), "no checkpoint of this"),
        (cosigned("other" + note, witness, secret, NOW), "no checkpoint of this"),
        (good[:-3] + "\n", "malformed"),
        ("", "signed note"),
        ("\x00" + good, "signed note"),
        ("x" * 200_000, "too long"),
    ):
        with pytest.raises(CosignatureRefused, match=words):
            log.cosign(wrong)

    with pool.connection() as connection:
        found = last(connection)
    assert found is not None
    assert found.whole == note


def test_the_example_of_the_specification_is_read_as_it_says() -> None:
    """From C2SP, tlog-cosignature: a checkpoint with a log's and a witness's lines."""
    text = (
        "example.com/behind-the-sofa\n20852163\n"
        "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "\N{EM DASH} example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4"
        "URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "\N{EM DASH} witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB"
        "9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )

    note = read_note(text)

    checkpoint = read_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    assert note.whole == text
    assert [each.name for each in note.signatures][1] == "witness.example.com/w1"
    assert int.from_bytes(note.signatures[1].content[:8], "big") == 1_679_315_147
