"""References, answered as the things themselves: `expand[]=latest_charge.customer`, on lists after
`data.`. What cannot be expanded is refused, with the parameter's name."""

from collections.abc import Callable, Mapping, Sequence
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
}
# Which fields of which objects are references, and to what.
REFERENCES: Final[Mapping[str, Mapping[str, Prefix]]] = {
    "payment_intent": {
        "customer": Prefix.CUSTOMER,
        "payment_method": Prefix.PAYMENT_METHOD,
        "latest_charge": Prefix.CHARGE,
    },
    "charge": {
        "customer": Prefix.CUSTOMER,
        "dispute": Prefix.DISPUTE,
        "payment_intent": Prefix.INTENT,
        "payment_method": Prefix.PAYMENT_METHOD,
    },
    "dispute": {"charge": Prefix.CHARGE, "payment_intent": Prefix.INTENT},
    "refund": {"charge": Prefix.CHARGE, "payment_intent": Prefix.INTENT},
    "payment_method": {"customer": Prefix.CUSTOMER},
    "subscription": {
        "customer": Prefix.CUSTOMER,
        "default_payment_method": Prefix.PAYMENT_METHOD,
        "latest_invoice": Prefix.INVOICE,
    },
    "invoice": {
        "charge": Prefix.CHARGE,
        "customer": Prefix.CUSTOMER,
        "default_payment_method": Prefix.PAYMENT_METHOD,
        "payment_intent": Prefix.INTENT,
        "subscription": Prefix.SUBSCRIPTION,
    },
}


def check(kind: str, paths: Sequence[str]) -> None:
    """Refuses, before any effect, what could not be expanded of a `kind` of object. Raises ApiError."""
    for place, path in enumerate(paths):
        at: str | None = kind
        for step in path.split("."):
            prefix = REFERENCES.get(at or "", {}).get(step)
            if step == "charges" and at == "payment_intent":
                at = "list"
            elif step == "data" and at == "list":
                at = "charge"
            elif prefix is None:
                raise invalid("invalid_param", "This cannot be expanded.", f"expand[{place}]")
            else:
                at = KINDS[prefix]


def expanded(
    body: Document, paths: Sequence[str], reader: Reader, newer: Sequence[Document] = ()
) -> Document:
    """`body` with the things in the place of the references that `paths` name. `newer`: things that
    are not stored yet as they are. Raises ApiError."""
    known: dict[str, Document] = {each["id"]: each for each in newer}

    def thing(prefix: Prefix, public_id: str) -> Document:
        if public_id not in known:
            find: Mapping[Prefix, Callable[[str], Document]] = {
                Prefix.CUSTOMER: reader.customer,
                Prefix.PAYMENT_METHOD: reader.payment_method,
                Prefix.INTENT: reader.intent,
                Prefix.CHARGE: reader.charge,
                Prefix.DISPUTE: reader.dispute,
                Prefix.SUBSCRIPTION: reader.subscription,
                Prefix.INVOICE: reader.invoice,
            }
            known[public_id] = find[prefix](public_id)
        return dict(known[public_id])

    for place, path in enumerate(paths):
        _expand(body, path.split("."), thing, f"expand[{place}]")
    return body


def _expand(
    body: Document, steps: Sequence[str], thing: Callable[[Prefix, str], Document], param: str
) -> None:
    if not steps:
        return
    step, rest = steps[0], steps[1:]
    if body.get("object") in ("list", "search_result") and step == "data":
        for each in body["data"]:
            _expand(each, rest, thing, param)
        return
    references = REFERENCES.get(body.get("object", ""), {})
    if step == "charges" and isinstance(body.get(step), dict):
        _expand(body[step], rest, thing, param)
        return
    if step not in references:
        raise invalid("invalid_param", "This cannot be expanded.", param)
    value = body.get(step)
    if isinstance(value, str) and value.startswith(references[step]):
        value = body[step] = thing(references[step], value)
    if isinstance(value, dict) and not value.get("deleted"):
        _expand(value, rest, thing, param)
