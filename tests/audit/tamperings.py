"""What somebody who owns the database can do to it, and what verifying says of each.

The triggers that refuse changes are off, as they are for whoever may switch them off. Each tampering is a
test, and a line of the table in docs/audit-verify.md.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb

from domain.evidence import Checkpoint, leaf_bytes, leaf_hash, root_of
from domain.payment import Payment
from infrastructure.audit import notes
from infrastructure.audit.duties import Sealing
from infrastructure.audit.tree import grown
from infrastructure.checkpoint_keys import (
    SigningKey,
    key_kept_in,
    new_signing_key,
    signing_keys,
)
from infrastructure.clock import SystemClock
from infrastructure.event_store import event_digest
from infrastructure.settings import Settings
from infrastructure.verification.findings import Kind
from infrastructure.verification.order import BEGINNING
from projections.registry import FOLLOWING
from tests.audit.a_sealed_log import ORIGIN, audit_settings, whole_log
from tests.builders import Story, a_payment, an_id
from tests.infrastructure.projections.a_log import append, connect, follow, follower_of
from tests.patience import patient_pool

SHARD: Final = 7
UNTAMPERED: Final[LiteralString] = "SET session_replication_role = replica"
EVENT: Final[LiteralString] = """
    UPDATE events SET {} WHERE shard = %(shard)s AND position = %(position)s
"""

Tamper = Callable[["World"], None]


@dataclass(frozen=True, kw_only=True)
class World:
    """A sealed and signed log with payments of one shard, and one of another."""

    url: str
    settings: Settings
    payments: Sequence[Payment]
    kept: str  # the last checkpoint, as an auditor kept it

    def do(self, statement: LiteralString, **parameters: Any) -> list[Any]:
        """As the owner of the database, with no trigger in the way."""
        with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
            connection.execute(UNTAMPERED)
            cursor = connection.execute(statement, parameters)
            return cursor.fetchall() if cursor.description else []

    def seal(self) -> str:
        """Everything that is in the log, and the checkpoint of it."""
        with patient_pool(self.url, size=2) as pool:
            return Sealing(pool, self.settings, SystemClock()).seal_and_sign().whole


@dataclass(frozen=True, kw_only=True)
class Tampering:
    """`finds`: one of the kinds that are found, with what is known of where. `needs_outside`: nothing
    is found without the checkpoint that the auditor kept."""

    name: str
    tamper: Tamper
    finds: Kind
    where: dict[str, Any]
    needs_outside: bool = False


def a_world(url: str, folder: Path) -> World:
    """Five payments, four of them in one shard."""
    settings = audit_settings(folder)
    paid = [
        Story(a_payment(payment_id=an_id(9001, shard=SHARD), order_id="ORD-1")),
        Story(a_payment(payment_id=an_id(9002, shard=SHARD), order_id="ORD-2")),
        Story(a_payment(payment_id=an_id(9003, shard=SHARD), order_id="ORD-3")),
        Story(a_payment(payment_id=an_id(9004, shard=SHARD), order_id="ORD-4")),
        Story(a_payment(payment_id=an_id(9005, shard=8), order_id="ORD-5")),
    ]
    paid[0].authorized().captured()
    paid[1].authorized().captured().refunded()
    paid[2].authorized().voided()
    paid[3].declined()
    paid[4].authorized()
    payments = [story.payment for story in paid]
    world = World(url=url, settings=settings, payments=payments, kept="")
    with patient_pool(url, size=2) as pool:
        append(pool, *payments[:2])
        world.seal()
        append(pool, *payments[2:])
    for number, payment in enumerate(payments, 1):
        if payment.status.value in ("captured", "authorized"):
            world.do(TAKE_SLOT, order_id=f"ORD-{number}", payment_id=payment.id)
    kept = world.seal()
    with connect(url) as connection:
        for model in FOLLOWING:
            follow(connection, follower_of(connection, model.name))
    return World(url=url, settings=settings, payments=payments, kept=kept)


TAKE_SLOT: Final[LiteralString] = """
    INSERT INTO order_slots (merchant_id, mode, order_id, payment_id)
    VALUES ('mer_ficmart', 'test', %(order_id)s, %(payment_id)s)
"""


# --- in the log ---------------------------------------------------------------------------------


def flip_a_bit(world: World) -> None:
    """Five thousand becomes four thousand: the last bit of one digit."""
    (row,) = world.do(STATE, shard=SHARD, position=1)
    state = bytes(row["state"])
    at = state.index(b'"amount_minor":') + len(b'"amount_minor":')
    flipped = state[:at] + bytes([state[at] ^ 1]) + state[at + 1 :]
    world.do(SET_STATE, shard=SHARD, position=1, state=flipped)


def delete_an_event(world: World) -> None:
    world.do("DELETE FROM events WHERE shard = %(shard)s AND position = 3", shard=SHARD)


def swap_two_events(world: World) -> None:
    world.do(SWAP, shard=SHARD, first=4, second=5)


def cut_the_end(world: World) -> None:
    """With the head of the shard made to fit."""
    world.do("DELETE FROM events WHERE shard = %(shard)s AND position > 12", shard=SHARD)
    world.do(REWIND, shard=SHARD)


def cut_the_end_with_the_tree(world: World) -> None:
    """What was sealed first is all that there is, as it was then; made to fit everywhere."""
    for payment in world.payments[2:]:
        for statement in FORGET_PAYMENT:
            world.do(statement, payment_id=payment.id)
    world.do(REWIND, shard=SHARD)
    world.do(EMPTY_HEAD, beginning=BEGINNING)
    unseal(world)
    world.seal()
    for statement in FORGET_FOLLOWING:
        world.do(statement)
    with connect(world.url) as connection:
        for model in FOLLOWING:
            follow(connection, follower_of(connection, model.name))


def change_the_time(world: World) -> None:
    world.do(CHANGE_TIME, shard=SHARD, position=2)


def change_the_cause(world: World) -> None:
    world.do(CHANGE_CAUSE, shard=SHARD, position=2)


def change_the_cause_and_its_digest(world: World) -> None:
    change_the_cause(world)
    digest_again(world)


def change_the_cause_and_the_chain(world: World) -> None:
    change_the_cause_and_its_digest(world)
    chain_again(world)


def compute_the_tree_again(world: World) -> None:
    """All of it, from the changed event up to the signatures, with the real key."""
    change_the_cause_and_the_chain(world)
    unseal(world)
    world.seal()


# --- what is signed -----------------------------------------------------------------------------


def forge_a_checkpoint(world: World) -> None:
    """By another key of the same name, which is put among those of the log."""
    (key,) = signing_keys(new_signing_key())
    (row,) = world.do("SELECT size, root FROM audit_checkpoints WHERE number = 2")
    text = Checkpoint(origin=ORIGIN, size=row["size"], root=bytes(row["root"])).text
    world.do(FORGE, note=notes.signed(text, [key]).whole, keys=[key.verifier.text])
    world.do(ADD_KEY, vkey=key.verifier.text)


def sign_another_root(world: World) -> None:
    """With the real key."""
    keys = signing_keys(world.settings.checkpoint_key or key_text(world.settings))
    root = bytes(32)
    text = Checkpoint(origin=ORIGIN, size=8, root=root).text
    world.do(FORGE_ROOT, note=notes.signed(text, keys).whole, root=root, size=8)


def delete_a_checkpoint(world: World) -> None:
    world.do("DELETE FROM audit_checkpoints WHERE number = 1")


def edit_a_leaf(world: World) -> None:
    world.do("UPDATE audit_tiles SET hashes = set_byte(hashes, 0, 255 - get_byte(hashes, 0))")


def move_a_run(world: World) -> None:
    world.do("UPDATE audit_runs SET position = position + 1 WHERE position = 0")


def sign_for_a_stranger(world: World) -> None:
    """Without our key: a stranger puts a signature of theirs under a checkpoint that we signed, so that
    both have signed it, and from there on signs another history by themselves."""
    (key,) = signing_keys(new_signing_key())
    (first,) = world.do("SELECT note FROM audit_checkpoints WHERE number = 1")
    note = notes.read_note(first["note"])
    both = notes.Note(
        text=note.text,
        signatures=[*note.signatures, *notes.signed(note.text, [key]).signatures],
    )
    own = signing_keys(key_text(world.settings))[0].verifier.text
    world.do(SIGNED_BY, number=1, note=both.whole, keys=[own, key.verifier.text])
    world.do(ADD_KEY, vkey=key.verifier.text)
    change_the_cause_of_the_last(world)
    seal_the_rest_again(world, key)


def seal_the_rest_again(world: World, key: SigningKey) -> None:
    """The tree, from what the second checkpoint has more than the first; and that checkpoint."""
    with psycopg.connect(world.url, autocommit=True, row_factory=dict_row) as connection:
        connection.execute(UNTAMPERED)
        leaves = [leaf_hash(leaf_bytes(leaf)) for leaf in whole_log(connection)]
        for (level, tile), hashes in grown(0, {}, leaves).items():
            connection.execute(SET_TILE, {"level": level, "tile": tile, "hashes": hashes})
    checkpoint = Checkpoint(origin=ORIGIN, size=len(leaves), root=root_of(leaves))
    whole = notes.signed(checkpoint.text, [key]).whole
    world.do(SIGNED_BY, number=2, note=whole, keys=[key.verifier.text])
    world.do(SET_ROOT, number=2, root=checkpoint.root)


def change_the_cause_of_the_last(world: World) -> None:
    """With its digest and the chain."""
    world.do(CHANGE_CAUSE, shard=8, position=2)
    digest_again(world)
    chain_again(world)


def swap_two_checkpoints(world: World) -> None:
    world.do("UPDATE audit_checkpoints SET number = 3 WHERE number = 1")
    world.do("UPDATE audit_checkpoints SET number = 1 WHERE number = 2")
    world.do("UPDATE audit_checkpoints SET number = 2 WHERE number = 3")


def say_that_others_signed(world: World) -> None:
    (key,) = signing_keys(new_signing_key())
    world.do("UPDATE audit_checkpoints SET keys = %(keys)s", keys=[key.verifier.text])


def forget_the_key(world: World) -> None:
    world.do("DELETE FROM audit_keys")


def delete_what_was_pushed(world: World) -> None:
    world.do(PUSHED)
    world.do("DELETE FROM audit_checkpoints WHERE number = 2")


def skip_in_sealing(world: World) -> None:
    world.do(
        "UPDATE audit_cursors SET position = position + 1 WHERE shard = %(shard)s", shard=SHARD
    )


def add_a_tile(world: World) -> None:
    world.do("INSERT INTO audit_tiles SELECT level, tile + 1, hashes FROM audit_tiles")


def say_that_the_tree_is_endless(world: World) -> None:
    world.do("UPDATE audit_tree SET size = 1::bigint << 60")


# --- what would be left out on its own word -----------------------------------------------------


def hide_a_shard(world: World) -> None:
    """What is not in the list of the shards is looked at all the same."""
    change_the_cause(world)
    world.do("DELETE FROM shard_heads WHERE shard = %(shard)s", shard=SHARD)


def make_up_rows_of_no_shard(world: World) -> None:
    world.do(OF_NO_SHARD)


def say_that_receipts_are_of_other_code(world: World) -> None:
    edit_a_receipt(world)
    world.do("UPDATE projection_generations SET code_version = 99 WHERE name = 'receipts'")


def forget_whose_receipts_they_are(world: World) -> None:
    edit_a_receipt(world)
    world.do("DELETE FROM projection_generations WHERE name = 'receipts'")


def set_a_payment_aside(world: World) -> None:
    """And all that it moved."""
    payment_id = world.payments[0].id
    world.do(SET_ASIDE, shard=SHARD, payment_id=payment_id)
    world.do("DELETE FROM entries WHERE payment_id = %(id)s", id=payment_id)
    for statement in SUM_AGAIN:
        world.do(statement, shard=SHARD)


def read_no_more(world: World) -> None:
    world.do(READ_TOO_FAR, shard=9)


def forget_how_far_was_read(world: World) -> None:
    world.do("DELETE FROM projection_positions WHERE name = 'balances' AND shard = %(s)s", s=9)


# --- what is kept beside the log ----------------------------------------------------------------


def set_the_time_before_christ(world: World) -> None:
    """Which is written with the same digits."""
    world.do(BEFORE_CHRIST, shard=SHARD, position=2)


def set_no_time_at_all(world: World) -> None:
    world.do(NEVER, shard=SHARD, position=2)


def make_a_number_a_fraction(world: World) -> None:
    """Of the same value, and other JSON."""
    world.do(FRACTION, payment_id=world.payments[0].id)


def free_an_order(world: World) -> None:
    """So that it could be paid for twice."""
    world.do("DELETE FROM order_slots WHERE order_id = 'ORD-1'")


def change_a_calls_key(world: World) -> None:
    """Under which the bank would do it once more."""
    payment = a_payment(payment_id=an_id(9006, shard=9), order_id=None)
    with patient_pool(world.url, size=1) as pool:
        append(pool, payment)
    world.do(MAKE_UP_CALL, shard=9, payment_id=payment.id, operation="authorization")


def edit_a_receipt(world: World) -> None:
    world.do(EDIT_RECEIPT, payment_id=world.payments[0].id)


def delete_a_receipt(world: World) -> None:
    world.do(
        "DELETE FROM receipts WHERE payment_id = %(payment_id)s", payment_id=world.payments[3].id
    )


def edit_a_refund(world: World) -> None:
    world.do(EDIT_REFUND, payment_id=world.payments[1].id)


def edit_a_balance(world: World) -> None:
    world.do(EDIT_BALANCE, shard=SHARD)


def edit_a_posting(world: World) -> None:
    world.do(EDIT_POSTING, payment_id=world.payments[0].id)


def make_up_a_receipt(world: World) -> None:
    world.do(COPY_RECEIPT, payment_id=world.payments[0].id, other=an_id(9009, shard=SHARD))


def make_up_a_key(world: World) -> None:
    world.do(MAKE_UP_KEY, payment_id=an_id(9009, shard=SHARD))


def make_up_an_answer(world: World) -> None:
    world.do(MAKE_UP_ANSWER, payment_id=an_id(9009, shard=SHARD))


def take_a_slot(world: World) -> None:
    world.do(TAKE_SLOT, order_id="ORD-9", payment_id=an_id(9009, shard=SHARD))


def make_up_a_call(world: World) -> None:
    world.do(MAKE_UP_CALL, shard=SHARD, payment_id=world.payments[0].id, operation="refund")


def keep_a_card(world: World) -> None:
    world.do(KEEP_CARD, shard=SHARD, method_id=an_id(9009, shard=SHARD))


def keep_a_person(world: World) -> None:
    world.do(KEEP_PERSON, shard=SHARD, owner=an_id(9009, shard=SHARD), document=Jsonb({}))


FIRST: Final = {"shard": SHARD, "position": 1, "version": 1}
SECOND: Final = {"shard": SHARD, "position": 2, "version": 2}
TAMPERINGS: Final = (
    Tampering(
        name="one flipped bit in an event",
        tamper=flip_a_bit,
        finds=Kind.EVENT_CHANGED,
        where=FIRST,
    ),
    Tampering(
        name="a deleted event",
        tamper=delete_an_event,
        finds=Kind.EVENT_MISSING,
        where={"shard": SHARD, "position": 3},
    ),
    Tampering(
        name="two swapped events",
        tamper=swap_two_events,
        finds=Kind.CHAIN_BROKEN,
        where={"shard": SHARD, "position": 4},
    ),
    Tampering(
        name="a truncated log",
        tamper=cut_the_end,
        finds=Kind.LOG_TRUNCATED,
        where={"shard": SHARD, "position": 12},
    ),
    Tampering(
        name="a log truncated with its tree, checkpoints and rows",
        tamper=cut_the_end_with_the_tree,
        finds=Kind.OUTSIDE_CHECKPOINT_DIFFERS,
        where={"log_position": 18},
        needs_outside=True,
    ),
    Tampering(
        name="a re-computed tree, signed with the real key",
        tamper=compute_the_tree_again,
        finds=Kind.OUTSIDE_CHECKPOINT_DIFFERS,
        where={"log_position": 18},
        needs_outside=True,
    ),
    Tampering(
        name="an edited receipt",
        tamper=edit_a_receipt,
        finds=Kind.ROW_DIFFERS,
        where={"shard": SHARD, "table": "receipts"},
    ),
    Tampering(
        name="an edited balance",
        tamper=edit_a_balance,
        finds=Kind.BALANCE_DIFFERS,
        where={"shard": SHARD, "table": "balances"},
    ),
    Tampering(
        name="a forged checkpoint",
        tamper=forge_a_checkpoint,
        finds=Kind.CHECKPOINT_FORGED,
        where={"log_position": 18},
    ),
    Tampering(
        name="a changed time",
        tamper=change_the_time,
        finds=Kind.TIME_CHANGED,
        where=SECOND,
    ),
    Tampering(
        name="a changed cause",
        tamper=change_the_cause,
        finds=Kind.EVENT_CHANGED,
        where=SECOND,
    ),
    Tampering(
        name="a changed cause with its digest",
        tamper=change_the_cause_and_its_digest,
        finds=Kind.CHAIN_BROKEN,
        where={"shard": SHARD, "position": 1},
    ),
    Tampering(
        name="a changed cause with its digest and the chain",
        tamper=change_the_cause_and_the_chain,
        finds=Kind.LEAF_DIFFERS,
        where=SECOND,
    ),
    Tampering(
        name="another root, signed with the real key",
        tamper=sign_another_root,
        finds=Kind.CHECKPOINT_DIFFERS,
        where={"log_position": 8},
    ),
    Tampering(
        name="a deleted checkpoint",
        tamper=delete_a_checkpoint,
        finds=Kind.CHECKPOINT_MISSING,
        where={"table": "audit_checkpoints"},
    ),
    Tampering(
        name="an edited leaf",
        tamper=edit_a_leaf,
        finds=Kind.LEAF_DIFFERS,
        where={"log_position": 0},
    ),
    Tampering(
        name="an edited order of sealing",
        tamper=move_a_run,
        finds=Kind.SEALING_BROKEN,
        where={"table": "audit_runs"},
    ),
    Tampering(
        name="a deleted receipt",
        tamper=delete_a_receipt,
        finds=Kind.ROW_MISSING,
        where={"table": "receipts", "shard": SHARD},
    ),
    Tampering(
        name="an edited refund",
        tamper=edit_a_refund,
        finds=Kind.ROW_DIFFERS,
        where={"table": "refunds", "shard": SHARD},
    ),
    Tampering(
        name="an edited posting",
        tamper=edit_a_posting,
        finds=Kind.ROW_DIFFERS,
        where={"table": "entries", "version": 4},
    ),
    Tampering(
        name="a receipt of no payment",
        tamper=make_up_a_receipt,
        finds=Kind.ROW_WITHOUT_EVENTS,
        where={"table": "receipts", "shard": SHARD},
    ),
    Tampering(
        name="an idempotency key of nothing",
        tamper=make_up_a_key,
        finds=Kind.ORPHAN,
        where={"table": "idempotency_keys"},
    ),
    Tampering(
        name="an answer under no idempotency key",
        tamper=make_up_an_answer,
        finds=Kind.ORPHAN,
        where={"table": "idempotency_answers"},
    ),
    Tampering(
        name="an order's slot of no payment",
        tamper=take_a_slot,
        finds=Kind.ORPHAN,
        where={"table": "order_slots"},
    ),
    Tampering(
        name="a call to the bank that nobody asked for",
        tamper=make_up_a_call,
        finds=Kind.ORPHAN,
        where={"table": "bank_calls"},
    ),
    Tampering(
        name="a sealed card of no payment method",
        tamper=keep_a_card,
        finds=Kind.ORPHAN,
        where={"table": "stored_cards"},
    ),
    Tampering(
        name="personal data of nobody",
        tamper=keep_a_person,
        finds=Kind.ORPHAN,
        where={"table": "personal_data"},
    ),
    Tampering(
        name="a stranger's signature under ours, and then another history of theirs",
        tamper=sign_for_a_stranger,
        finds=Kind.CHECKPOINT_FORGED,
        where={"log_position": 18},
    ),
    Tampering(
        name="two swapped checkpoints",
        tamper=swap_two_checkpoints,
        finds=Kind.CHECKPOINT_DIFFERS,
        where={"table": "audit_checkpoints"},
    ),
    Tampering(
        name="other keys beside a checkpoint",
        tamper=say_that_others_signed,
        finds=Kind.CHECKPOINT_FORGED,
        where={"table": "audit_checkpoints"},
    ),
    Tampering(
        name="a deleted public key",
        tamper=forget_the_key,
        finds=Kind.CHECKPOINT_KEY_UNKNOWN,
        where={"table": "audit_keys"},
    ),
    Tampering(
        name="a deleted last checkpoint, which was pushed",
        tamper=delete_what_was_pushed,
        finds=Kind.CHECKPOINT_MISSING,
        where={"table": "audit_pushes"},
    ),
    Tampering(
        name="an event that sealing would skip",
        tamper=skip_in_sealing,
        finds=Kind.SEALING_BROKEN,
        where={"table": "audit_cursors", "shard": SHARD},
    ),
    Tampering(
        name="a tile that is not of the tree",
        tamper=add_a_tile,
        finds=Kind.TREE_BROKEN,
        where={"table": "audit_tiles"},
    ),
    Tampering(
        name="a tree without an end",
        tamper=say_that_the_tree_is_endless,
        finds=Kind.SEALING_BROKEN,
        where={"table": "audit_tree"},
    ),
    Tampering(
        name="a changed cause in a shard that is hidden",
        tamper=hide_a_shard,
        finds=Kind.EVENT_CHANGED,
        where=SECOND,
    ),
    Tampering(
        name="receipts in a shard that there is not",
        tamper=make_up_rows_of_no_shard,
        finds=Kind.ROW_WITHOUT_EVENTS,
        where={"table": "receipts", "shard": 99},
    ),
    Tampering(
        name="an edited receipt, said to be of other code",
        tamper=say_that_receipts_are_of_other_code,
        finds=Kind.ROWS_NOT_COMPARED,
        where={"table": "receipts"},
    ),
    Tampering(
        name="an edited receipt, said to be of no code",
        tamper=forget_whose_receipts_they_are,
        finds=Kind.ROWS_NOT_COMPARED,
        where={"table": "receipts"},
    ),
    Tampering(
        name="a payment that balances are said to have set aside",
        tamper=set_a_payment_aside,
        finds=Kind.SET_ASIDE,
        where={"table": "projection_quarantine", "shard": SHARD},
    ),
    Tampering(
        name="balances that are said to have read what is yet to come",
        tamper=read_no_more,
        finds=Kind.ROWS_NOT_COMPARED,
        where={"table": "projection_positions", "shard": 9},
    ),
    Tampering(
        name="balances that are said to have read nothing",
        tamper=forget_how_far_was_read,
        finds=Kind.ROWS_NOT_COMPARED,
        where={"table": "projection_positions"},
    ),
    Tampering(
        name="the same time before Christ",
        tamper=set_the_time_before_christ,
        finds=Kind.TIME_CHANGED,
        where=SECOND,
    ),
    Tampering(
        name="no time",
        tamper=set_no_time_at_all,
        finds=Kind.TIME_CHANGED,
        where=SECOND,
    ),
    Tampering(
        name="an amount of the same value, as a fraction",
        tamper=make_a_number_a_fraction,
        finds=Kind.ROW_DIFFERS,
        where={"table": "receipts", "shard": SHARD},
    ),
    Tampering(
        name="an order's slot that is gone",
        tamper=free_an_order,
        finds=Kind.ORPHAN,
        where={"table": "order_slots"},
    ),
    Tampering(
        name="a call to the bank under another key",
        tamper=change_a_calls_key,
        finds=Kind.ROW_DIFFERS,
        where={"table": "bank_calls"},
    ),
)


# --- how it is done -----------------------------------------------------------------------------

STATE: Final[LiteralString] = """
    SELECT state FROM events WHERE shard = %(shard)s AND position = %(position)s
"""
SET_STATE: Final[LiteralString] = EVENT.format("state = %(state)s")
CHANGE_TIME: Final[LiteralString] = EVENT.format("recorded_at = recorded_at - interval '1 day'")
BEFORE_CHRIST: Final[LiteralString] = EVENT.format("""recorded_at = (
    to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00 BC'
)::timestamptz""")
NEVER: Final[LiteralString] = EVENT.format("recorded_at = 'infinity'")
CHANGE_CAUSE: Final[LiteralString] = EVENT.format("""cause = '{{"actor":"somebody else"}}'""")
SWAP: Final[LiteralString] = """
    UPDATE events SET position = %(first)s + %(second)s - position
    WHERE shard = %(shard)s AND position IN (%(first)s, %(second)s)
"""
REWIND: Final[LiteralString] = """
    UPDATE shard_heads SET (position, hash) = (
        SELECT position, chain_hash FROM events WHERE shard = %(shard)s
        ORDER BY position DESC LIMIT 1
    ) WHERE shard = %(shard)s
"""
EMPTY_HEAD: Final[LiteralString] = """
    UPDATE shard_heads SET position = 0, hash = %(beginning)s WHERE shard = 8
"""
FORGET_PAYMENT: Final[tuple[LiteralString, ...]] = (
    "DELETE FROM events WHERE originator_id = %(payment_id)s",
    "DELETE FROM receipts WHERE payment_id = %(payment_id)s",
    "DELETE FROM order_slots WHERE payment_id = %(payment_id)s",
)
FORGET_FOLLOWING: Final[tuple[LiteralString, ...]] = (
    *("TRUNCATE balances, entries, customer_totals, operation_hours, api_events",),
    "UPDATE projection_positions SET position = 0",
)
UNSEAL: Final[tuple[LiteralString, ...]] = (
    "TRUNCATE audit_runs, audit_tiles, audit_checkpoints",
    "UPDATE audit_tree SET size = 0, owner = NULL, owned_until = NULL",
    "UPDATE audit_cursors SET position = 0",
)
FORGE: Final[LiteralString] = """
    UPDATE audit_checkpoints SET note = %(note)s, keys = %(keys)s WHERE number = 2
"""
FORGE_ROOT: Final[LiteralString] = """
    UPDATE audit_checkpoints SET note = %(note)s, root = %(root)s, size = %(size)s WHERE number = 1
"""
ADD_KEY: Final[LiteralString] = """
    INSERT INTO audit_keys (vkey, first_used, last_used) VALUES (%(vkey)s, now(), now())
"""
EDIT_RECEIPT: Final[LiteralString] = """
    UPDATE receipts SET document = jsonb_set(document, '{amount_captured}', '1')
    WHERE payment_id = %(payment_id)s
"""
EDIT_REFUND: Final[LiteralString] = """
    UPDATE refunds SET document = jsonb_set(document, '{amount}', '1')
    WHERE payment_id = %(payment_id)s
"""
EDIT_BALANCE: Final[LiteralString] = """
    UPDATE balances SET captured = captured + 100, cardholder = cardholder - 100
    WHERE shard = %(shard)s AND customer_id = ''
"""
EDIT_POSTING: Final[LiteralString] = """
    UPDATE entries SET captured = captured + 100, cardholder = cardholder - 100
    WHERE payment_id = %(payment_id)s AND version = 4
"""
COPY_RECEIPT: Final[LiteralString] = """
    INSERT INTO receipts SELECT (jsonb_populate_record(
        r, jsonb_build_object('payment_id', %(other)s::uuid, 'status', 'voided')
    )).* FROM receipts AS r WHERE payment_id = %(payment_id)s
"""
MAKE_UP_KEY: Final[LiteralString] = """
    INSERT INTO idempotency_keys (
        merchant_id, mode, key, fingerprint, request_id, payment_id, claimed_at
    ) VALUES ('mer_ficmart', 'test', 'made-up', '', 'req_1', %(payment_id)s, now())
"""
MAKE_UP_ANSWER: Final[LiteralString] = """
    INSERT INTO idempotency_answers (
        request_id, merchant_id, mode, key, payment_id, status, headers, body, tells_of_people
    ) VALUES ('req_1', 'mer_ficmart', 'test', 'made-up', %(payment_id)s, 201, '{}', '{}', false)
"""
MAKE_UP_CALL: Final[LiteralString] = """
    INSERT INTO bank_calls (
        shard, payment_id, merchant_id, mode, operation, bank_key, actor, family, dialect, attempts,
        unanswered, contradictions, reached, in_flight, parked, fence, due_at, since
    ) VALUES (
        %(shard)s, %(payment_id)s, 'mer_ficmart', 'test', %(operation)s, 'key', 'key_1', 'gateway', '', 0,
        0, 0, false, false, false, 1, now(), now()
    )
"""
KEEP_CARD: Final[LiteralString] = """
    INSERT INTO stored_cards (shard, method_id, sealed_number)
    VALUES (%(shard)s, %(method_id)s, 'sealed')
"""
KEEP_PERSON: Final[LiteralString] = """
    INSERT INTO personal_data (shard, owner, merchant_id, mode, document)
    VALUES (%(shard)s, %(owner)s, 'mer_ficmart', 'test', %(document)s)
"""
FRACTION: Final[LiteralString] = """
    UPDATE receipts SET document = jsonb_set(document, '{amount}', '5000.0')
    WHERE payment_id = %(payment_id)s
"""
SIGNED_BY: Final[LiteralString] = """
    UPDATE audit_checkpoints SET note = %(note)s, keys = %(keys)s WHERE number = %(number)s
"""
SET_ROOT: Final[LiteralString] = """
    UPDATE audit_checkpoints SET root = %(root)s WHERE number = %(number)s
"""
SET_TILE: Final[LiteralString] = """
    UPDATE audit_tiles SET hashes = %(hashes)s WHERE level = %(level)s AND tile = %(tile)s
"""
PUSHED: Final[LiteralString] = """
    INSERT INTO audit_pushes (target, number, failures, due_at) VALUES ('x', 2, 0, now())
"""
OF_NO_SHARD: Final[LiteralString] = """
    INSERT INTO receipts SELECT (jsonb_populate_record(r, '{"shard": 99}')).* FROM receipts AS r
"""
READ_TOO_FAR: Final[LiteralString] = """
    UPDATE projection_positions SET position = 1000 WHERE name = 'balances' AND shard = %(shard)s
"""
SET_ASIDE: Final[LiteralString] = """
    INSERT INTO projection_quarantine (
        name, generation, shard, originator_id, applied_version, error, attempts
    )
    SELECT name, generation, %(shard)s, %(payment_id)s, 1, '', 1 FROM projection_generations
    WHERE name = 'balances' AND slot = 'live'
"""
SUM_AGAIN: Final[tuple[LiteralString, ...]] = (
    "DELETE FROM balances WHERE shard = %(shard)s",
    """
    INSERT INTO balances (
        shard, merchant_id, mode, customer_id, currency, held, captured, refunded, disputed,
        cardholder, entries
    )
    SELECT shard, merchant_id, mode, c.customer_id, currency, sum(held), sum(captured),
           sum(refunded), sum(disputed), sum(cardholder), count(*)
    FROM entries AS e CROSS JOIN LATERAL (SELECT e.customer_id UNION SELECT '') AS c
    WHERE shard = %(shard)s GROUP BY 1, 2, 3, 4, 5
    """,
)
ALL: Final[LiteralString] = """
    SELECT shard, position, event_id, originator_id, originator_version, topic, state, cause,
           to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS at, digest,
           chain_hash
    FROM events ORDER BY shard, position
"""
SET_DIGEST: Final[LiteralString] = EVENT.format("digest = %(digest)s")
SET_CHAIN: Final[LiteralString] = EVENT.format("chain_hash = %(chain_hash)s")
SET_HEAD: Final[LiteralString] = """
    UPDATE shard_heads SET hash = %(hash)s WHERE shard = %(shard)s
"""


def digest_again(world: World) -> None:
    """Each event's, as the log's documentation says."""
    for row in world.do(ALL):
        digest = event_digest(
            event_id=row["event_id"],
            originator_id=row["originator_id"],
            originator_version=row["originator_version"],
            topic=row["topic"],
            recorded_at=row["at"],
            state=bytes(row["state"]).decode(),
            cause=row["cause"],
        )
        world.do(SET_DIGEST, shard=row["shard"], position=row["position"], digest=digest)


def chain_again(world: World) -> None:
    """Over all digests, append by append."""
    appends: dict[tuple[int, bytes], list[DictRow]] = {}
    for row in world.do(ALL):
        appends.setdefault((row["shard"], bytes(row["chain_hash"])), []).append(row)
    heads: dict[int, bytes] = {}
    for (shard, _), rows in appends.items():
        digests = b"".join(bytes(row["digest"]) for row in rows)
        heads[shard] = hashlib.sha256(heads.get(shard, BEGINNING) + digests).digest()
        for row in rows:
            world.do(SET_CHAIN, shard=shard, position=row["position"], chain_hash=heads[shard])
    for shard, head in heads.items():
        world.do(SET_HEAD, shard=shard, hash=head)


def unseal(world: World) -> None:
    """As if nothing had ever been sealed."""
    for statement in UNSEAL:
        world.do(statement)


def key_text(settings: Settings) -> str:
    return key_kept_in(settings.data_dir)
