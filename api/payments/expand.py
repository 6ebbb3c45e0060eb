"""References, answered as the things themselves: `customer`, `data.latest_charge`, four levels deep.

Of each level, all references of a kind are read at once, however many things refer to them.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Final

from api.errors import invalid
from api.payments.reading import Reader
from domain.ids import Prefix

Document = dict[str, Any]

KINDS: Final[Mapping[Prefix, str]] = {
    Prefix.CUSTOMER: "customer",
    Prefix.PAYMENT_METHOD: "payment_method",
    Prefix.CHARGE: "charge",
    Prefix.INTENT: "payment_intent",
    Prefix.DISPUTE: "dispute",
    Prefix.SUBSCRIPTION: "subscription",
    Prefix.INVOICE: "invoice",
    Prefix.REFUND: "refund",
    Prefix.CHARGE_REFUND: "refund",
}
# Which fields of which objects are references, and to what.
REFERENCES: Final[Mapping[str, Mapping[str, tuple[Prefix, ...]]]] = {
    "payment_intent": {
        "customer": (Prefix.CUSTOMER,),
        "payment_method": (Prefix.PAYMENT_METHOD,),
        "latest_charge": (Prefix.CHARGE,),
    },
    "charge": {
        "customer": (Prefix.CUSTOMER,),
        "dispute": (Prefix.DISPUTE,),
        "payment_intent": (Prefix.INTENT,),
        "payment_method": (Prefix.PAYMENT_METHOD,),
    },
    "dispute": {"charge": (Prefix.CHARGE,), "payment_intent": (Prefix.INTENT,)},
    "subscription": {
        "customer": (Prefix.CUSTOMER,),
        "default_payment_method": (Prefix.PAYMENT_METHOD,),
        "latest_invoice": (Prefix.INVOICE,),
    },
    "invoice": {
        "charge": (Prefix.CHARGE,),
        "customer": (Prefix.CUSTOMER,),
        "default_payment_method": (Prefix.PAYMENT_METHOD,),
        "payment_intent": (Prefix.INTENT,),
        "subscription": (Prefix.SUBSCRIPTION,),
    },
    "refund": {"charge": (Prefix.CHARGE,), "payment_intent": (Prefix.INTENT,)},
    "payment_method": {"customer": (Prefix.CUSTOMER,)},
    "balance_transaction": {
        "source": (Prefix.CHARGE, Prefix.CHARGE_REFUND, Prefix.REFUND, Prefix.DISPUTE)
    },
}
LISTS: Final = frozenset({"list", "search_result"})


def check(kind: str, paths: Sequence[str]) -> None:
    """Refuses, before any effect, what could not be expanded of a `kind` of object. Raises ApiError."""
    for place, path in enumerate(paths):
        at = {kind}
        for step in path.split("."):
            at = {after for each in at for after in _kinds_after(each, step)}
            if not at:
                raise _cannot_be(place)


def _kinds_after(kind: str, step: str) -> set[str]:
    """Of what `step` leads to from a `kind` of object."""
    if (kind, step) == ("payment_intent", "charges"):
        return {"list"}
    if (kind, step) == ("list", "data"):
        return {"charge"}
    return {KINDS[prefix] for prefix in REFERENCES.get(kind, {}).get(step, ())}


def expanded(
    body: Document,
    paths: Sequence[str],
    reader: Reader,
    newer: Sequence[Document] = (),
    receipts: Mapping[str, Document] | None = None,
) -> Document:
    """`body` with the things in the place of the references that `paths` name; what refers to nothing
    that is there stays as it is. `newer`: things that are not stored yet as they are; `receipts`:
    such of them as are payments. Raises ApiError."""
    known: dict[str, Document] = {each["id"]: each for each in newer}
    for place, path in enumerate(paths):
        things = [body]
        for step in path.split("."):
            things = _Level(things, step, place).expanded(known, reader, receipts or {})
    return body


class _Level:
    """Things, and the field of theirs that is expanded."""

    def __init__(self, things: Sequence[Document], step: str, place: int) -> None:
        self._step, self._place = step, place
        self._within: list[Document] = []  # what is in them already
        self._referring: list[Document] = []
        for thing in things:
            self._sort(thing)

    def _sort(self, thing: Document) -> None:
        step, kind = self._step, thing.get("object", "")
        if kind in LISTS and step == "data":
            self._within += thing["data"]
        elif step == "charges" and isinstance(thing.get(step), dict):
            self._within.append(thing[step])
        elif step not in REFERENCES.get(kind, {}):
            raise _cannot_be(self._place)
        elif isinstance(thing.get(step), dict):
            self._within.append(thing[step])
        elif isinstance(thing.get(step), str):
            self._referring.append(thing)

    def expanded(
        self, known: dict[str, Document], reader: Reader, receipts: Mapping[str, Document]
    ) -> list[Document]:
        """The next level."""
        self._read(known, reader, receipts)
        found = list(self._within)
        for thing in self._referring:
            referred = known.get(thing[self._step])
            if referred is not None:
                thing[self._step] = deepcopy(referred)
                found.append(thing[self._step])
        return [each for each in found if not each.get("deleted")]

    def _read(
        self, known: dict[str, Document], reader: Reader, receipts: Mapping[str, Document]
    ) -> None:
        """What is not known yet, by kind."""
        wanted: defaultdict[Prefix, set[str]] = defaultdict(set)
        for thing in self._referring:
            public_id = thing[self._step]
            for prefix in REFERENCES[thing["object"]][self._step]:
                if public_id.startswith(prefix) and public_id not in known:
                    wanted[prefix].add(public_id)
        for prefix, public_ids in wanted.items():
            known |= reader.things(prefix, sorted(public_ids), receipts)


def _cannot_be(place: int) -> Exception:
    return invalid("invalid_param", "This cannot be expanded.", f"expand[{place}]")
