"""The verdict: the bank's books against our receipts, to the cent, and every promise that was made.

Each check is a function from what was found to sentences that say what is wrong; none is good.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from scripts.reality.shoppers import Answer, Ask

Row = Mapping[str, Any]

ORPHAN: Final = "possible_orphan_hold"
IDS_UNKNOWN: Final = {"captures": "capture_id_unknown", "refunds": "refund_id_unknown"}
# What a receipt's status says that the bank did: holds that were captured, and that were released.
CAPTURED: Final = frozenset({"captured", "refunded"})
RELEASED: Final = frozenset({"voided", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """What the bank did for one payment."""

    holds: tuple[Row, ...] = ()
    captures: tuple[Row, ...] = ()
    voids: tuple[Row, ...] = ()
    refunds: tuple[Row, ...] = ()

    def unexplained(self, authorization_id: str | None) -> list[Row]:
        """The holds that are not the payment's own, and were not released."""
        released = {void["reference_id"] for void in self.voids}
        return [h for h in self.holds if h["id"] not in {authorization_id, *released}]


KINDS: Final = {"AUTH_HOLD": "holds", "CAPTURE": "captures", "VOID": "voids", "REFUND": "refunds"}


def by_payment(ledger: Row) -> dict[str, Entries]:
    """The bank's books by the payment that its idempotency keys name."""
    found: defaultdict[str, defaultdict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in ledger["transactions"]:
        payment_id = row["idempotency_key"].partition("-")[0]
        found[payment_id][KINDS[row["type"]]].append(row)
    return {
        payment_id: Entries(**{name: tuple(rows) for name, rows in its.items()})
        for payment_id, its in found.items()
    }


def double_charges(ledger: Row, receipts: Sequence[Row]) -> list[str]:
    """A payment that was captured twice, an order that was, money given back that was not taken."""
    wrong = []
    for payment_id, entries in by_payment(ledger).items():
        if len(entries.captures) > 1:
            wrong.append(f"{payment_id} was captured {len(entries.captures)} times")
        if _sum(entries.refunds) > _sum(entries.captures):
            wrong.append(f"{payment_id}: more was given back than taken")
    kept = Counter(r["order_id"] for r in receipts if r["status"] == "captured")
    return wrong + [f"{order} was paid {times} times" for order, times in kept.items() if times > 1]


def differences(ledger: Row, receipts: Sequence[Row], flags: Mapping[str, set[str]]) -> list[str]:
    """Every receipt against the bank's entries for it, both ways. `flags`: what each payment is
    known to need review for, which explains an id that nobody knows."""
    wrong = []
    entries = by_payment(ledger)
    for receipt in receipts:
        payment_id = receipt["payment_id"]
        its = entries.pop(payment_id, Entries())
        wrong += [
            f"{payment_id} ({receipt['status']}): {said}"
            for said in _differences(receipt, its, flags.get(payment_id, set()))
        ]
    return wrong + [f"{payment_id}: the bank knows it, and we do not" for payment_id in entries]


def _differences(receipt: Row, entries: Entries, flags: set[str]) -> Iterable[str]:
    own, bank = [receipt["bank"]["authorization_id"]], receipt["bank"]
    if receipt["pending_operation"] is not None:
        yield f"{receipt['pending_operation']} is still pending"
    if own != [None] and own[0] not in {hold["id"] for hold in entries.holds}:
        yield "the bank does not hold what it should"
    if {hold["amount"] for hold in entries.holds} - {receipt["amount"]}:
        yield "the bank holds another amount"
    yield from _different_amounts(receipt, entries)
    if (receipt["status"] in CAPTURED) != bool(entries.captures):
        yield "captured here or there, and not at both"
    if (receipt["status"] in RELEASED) != bool(entries.voids):
        yield "released here or there, and not at both"
    if {row["reference_id"] for row in (*entries.captures, *entries.voids)} - set(own):
        yield "the bank ended another hold than ours"
    known = {"captures": [bank["capture_id"]], "refunds": bank["refund_ids"]}
    theirs = {"captures": entries.captures, "refunds": entries.refunds}
    yield from (
        f"the bank's ids of the {name} are not ours"
        for name, ids in known.items()
        if {row["id"] for row in theirs[name]} != set(ids) - {None}
        and IDS_UNKNOWN[name] not in flags
    )


def _different_amounts(receipt: Row, entries: Entries) -> Iterable[str]:
    for name, rows in (("captured", entries.captures), ("refunded", entries.refunds)):
        if receipt[f"amount_{name}"] != _sum(rows):
            yield f"{receipt[f'amount_{name}']} {name}, and {_sum(rows)} at the bank"


def unexplained_holds(
    ledger: Row, receipts: Sequence[Row], flags: Mapping[str, set[str]]
) -> list[str]:
    """Holds that no receipt has, and no list of possible orphans either."""
    own = {receipt["payment_id"]: receipt["bank"]["authorization_id"] for receipt in receipts}
    return [
        f"{payment_id}: the bank holds {hold['id']}, and nobody was told"
        for payment_id, entries in by_payment(ledger).items()
        for hold in entries.unexplained(own.get(payment_id))
        if ORPHAN not in flags.get(payment_id, set())
    ]


def balances(ledger: Row, receipts: Sequence[Row], card_of: Mapping[str, str]) -> list[str]:
    """Each card's balance at the bank against the receipts of its order. `card_of`: by order id."""
    spent: Counter[str] = Counter()
    for receipt in receipts:
        card = card_of.get(receipt["order_id"])
        if card is not None:
            spent[card] += receipt["amount_captured"] - receipt["amount_refunded"]
    cards = set(card_of.values())
    return [
        f"a card's balance is {row['deposited'] - row['balance']} less, and {spent[number]} by ours"
        for row in ledger["accounts"]
        if (number := row["card_number"]) in cards
        and row["deposited"] - row["balance"] != spent[number]
    ]


def broken_answers(
    asks: Iterable[Ask], answers: Mapping[str, Sequence[Answer]], last: Mapping[str, Answer | None]
) -> list[str]:
    """Answers that were given and are not given any more. `last`: what each key is answered now."""
    wrong = []
    for ask in asks:
        now = last[ask.key]
        if now is None or not now.is_final:
            said = "nothing" if now is None else f"{now.status} {now.code}"
            wrong.append(f"{ask.key} has no outcome: {said}")
            continue
        given = {(a.status, a.body) for a in answers[ask.key] if is_outcome(a)}
        if now.replayed and given - {(now.status, now.body)}:
            wrong.append(f"{ask.key}: {sorted(it[0] for it in given)} once, {now.status} now")
        if not now.replayed and is_promised(answers[ask.key]):
            wrong.append(f"{ask.key}: it was promised an outcome, and that is forgotten now")
    return wrong


def without_answer(asks: Iterable[Ask], answers: Mapping[str, Sequence[Answer]]) -> list[str]:
    """Clients that came back again and again, and never heard what became of it."""
    return [ask.key for ask in asks if not any(answer.is_final for answer in answers[ask.key])]


def is_promised(given: Sequence[Answer]) -> bool:
    """Whether the key has an outcome, or was told that it will have one. A key that was refused by us
    is free: to ask again would be to ask anew."""
    return any(answer.status == 202 or is_outcome(answer) for answer in given)


def is_outcome(answer: Answer) -> bool:
    """Whether the answer says what became of the command at the bank, and is kept for ever; a
    refusal of ours leaves the key free, and names no payment."""
    return answer.is_final and (answer.status == 201 or answer.payment_id is not None)


def untrue_refusals(
    asks: Iterable[Ask], answers: Mapping[str, Sequence[Answer]], receipts: Sequence[Row]
) -> list[str]:
    """409s about a state that, once it is reached, is never left, of payments that are not in it."""
    by_id = {receipt["payment_id"]: receipt for receipt in receipts}
    wrong = []
    for ask in asks:
        receipt = by_id.get(str(ask.body.get("payment_id")))
        if receipt is not None:
            codes = {answer.code for answer in answers[ask.key] if answer.status == 409}
            wrong += [
                f"{ask.key}: {code}, and the payment is {receipt['status']}"
                for code in codes
                if not _is_true(code, receipt)
            ]
    return wrong


def _is_true(code: str, receipt: Row) -> bool:
    status = receipt["status"]
    match code:
        case "payment_already_captured":
            return status in CAPTURED
        case "payment_already_refunded":
            return bool(status == "refunded")
        case "payment_voided" | "payment_already_voided":
            return bool(status == "voided")
        case "payment_declined":
            return bool(status == "declined")
        case _:
            return True


def unexpected(answers: Mapping[str, Sequence[Answer]], expected: Iterable[int]) -> list[str]:
    """Answers that no gateway should give to a request that was right."""
    allowed = set(expected)
    return [
        f"{key}: {answer.status} {answer.code}"
        for key, given in answers.items()
        for answer in given
        if answer.status not in allowed
    ]


def _sum(rows: Iterable[Row]) -> int:
    return sum(row["amount"] for row in rows)
