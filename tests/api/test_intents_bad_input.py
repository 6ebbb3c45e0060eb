"""Whatever the intents' family is sent, in JSON or as a form: an error that names the field, in the words
that it is spoken to in, and nothing left behind."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
from werkzeug.test import TestResponse

from domain.commands import Mode
from infrastructure.api_keys import KeyType
from tests.api.an_api import GOOD_CARD, Api, Caller, json_of, refusal
from tests.api.test_bad_input import (
    FORM,
    INVALID,
    JSON,
    MALFORMED,
    NOT_JSON,
    NOT_TEXT,
    NOT_WHOLE,
    TOO_LARGE,
    TOO_SMALL,
    UNSPEAKABLE,
    bad,
    with_raw,
)
from tests.builders import ANY_AMOUNT, VISA
from tests.fakes import FakeBank, SteppableClock

MISSING: Final = "resource_missing"
INTENTS: Final = "/v1/payment_intents"
METHODS: Final = "/v1/payment_methods"
CUSTOMERS: Final = "/v1/customers"
REFUNDS: Final = "/v1/refunds"
TRANSACTIONS: Final = "/v1/balance_transactions"
RIGHT_INTENT: Final = {"amount": 2000, "currency": "usd"}
RIGHT_METHOD: Final = {"type": "card", "card": GOOD_CARD}

# Each command by its name: the path, and a body that would be right.
COMMANDS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "create": (INTENTS, RIGHT_INTENT),
    "update": (INTENTS + "/{intent}", {"description": "Two books"}),
    "confirm": (INTENTS + "/{intent}/confirm", {"payment_method": "pm_card_visa"}),
    "capture": (INTENTS + "/{held}/capture", {}),
    "cancel": (INTENTS + "/{intent}/cancel", {}),
    "method": (METHODS, RIGHT_METHOD),
    "change method": (METHODS + "/{method}", {"metadata": {"a": "b"}}),
    "attach": (METHODS + "/{loose}/attach", {"customer": "{customer}"}),
    "detach": (METHODS + "/{method}/detach", {}),
    "customer": (CUSTOMERS, {"name": "Ada"}),
    "change customer": (CUSTOMERS + "/{customer}", {"name": "Eve"}),
    "refund": (REFUNDS, {"payment_intent": "{paid}"}),
    "change refund": (REFUNDS + "/{refund}", {"metadata": {"a": "b"}}),
}
LISTS: Final = (
    INTENTS, METHODS, CUSTOMERS, CUSTOMERS + "/{customer}/payment_methods", "/v1/charges", REFUNDS,
    TRANSACTIONS, "/v1/events",
)  # fmt: skip
SEARCHES: Final = (f"{INTENTS}/search", f"{CUSTOMERS}/search", "/v1/charges/search")
# What is sought one by one, with the code of what is not there.
ONES: Final = {
    INTENTS + "/": "payment_intent_not_found",
    METHODS + "/": "payment_method_not_found",
    CUSTOMERS + "/": "customer_not_found",
    "/v1/charges/": "payment_not_found",
    REFUNDS + "/": "refund_not_found",
    TRANSACTIONS + "/": "balance_transaction_not_found",
    "/v1/events/": "event_not_found",
}
# Texts, by the command that takes them; what is within something else in brackets.
TEXTS: Final = {
    "create": ("description", "statement_descriptor", "customer", "payment_method", "receipt_email",
               "shipping[name]", "metadata[a]"),
    "update": ("description", "statement_descriptor_suffix", "customer_id", "metadata[a]"),
    "confirm": ("payment_method", "receipt_email", "shipping[name]"),
    "capture": ("statement_descriptor", "metadata[a]"),
    "method": ("billing_details[name]", "billing_details[address][city]", "metadata[a]"),
    "change method": ("billing_details[email]", "metadata[a]"),
    "attach": ("customer",),
    "customer": ("name", "email", "phone", "description", "address[line1]", "metadata[a]"),
    "change customer": ("name", "metadata[a]"),
    "refund": ("payment_intent", "metadata[a]"),
    "change refund": ("metadata[a]",),
}  # fmt: skip
AMOUNTS: Final = {
    "create": "amount", "update": "amount", "capture": "amount_to_capture", "refund": "amount",
}  # fmt: skip


@dataclass(frozen=True)
class Things:
    """What a right request could be about."""

    merchant: Caller
    ids: Mapping[str, str]

    def path(self, template: str) -> str:
        return template.format(**self.ids)

    def right(self, command: str) -> tuple[str, dict[str, Any]]:
        path, body = COMMANDS[command]
        told = {
            name: value.format(**self.ids) if isinstance(value, str) else value
            for name, value in body.items()
        }
        return self.path(path), told

    def send(self, command: str, text: str | bytes, content_type: str = JSON) -> TestResponse:
        return self.merchant.post(self.right(command)[0], data=text, content_type=content_type)

    def send_form(self, command: str, fields: Mapping[str, Any]) -> TestResponse:
        text = urlencode(list(flat(self.right(command)[1] | dict(fields))))
        return self.send(command, text, FORM)


def flat(body: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """In bracket notation."""
    for name, value in body.items():
        whole = f"{within}[{name}]" if within else name
        if isinstance(value, Mapping):
            yield from flat(value, whole)
        else:
            yield whole, str(value)


def nested(field: str, raw: str) -> tuple[str, str]:
    """The outermost field of one in brackets, and its value in JSON around `raw`."""
    outer, *inner = field.replace("]", "").split("[")
    beside = {"shipping[name]": '"address": {}, '}.get(field, "")
    for name in reversed(inner):
        raw = f'{{{beside}"{name}": {raw}}}'
    return outer, raw


@pytest.fixture(scope="module")
def things(shared_api: Api) -> Iterator[Things]:
    """Made once: whatever is asked of them is refused."""
    with shared_api.asking(FakeBank(SteppableClock(datetime.now(UTC)), ANY_AMOUNT)):
        yield _made(shared_api.merchant())


def _made(merchant: Caller) -> Things:
    def made(path: str, body: Mapping[str, Any]) -> str:
        answer = merchant.post(path, dict(body))
        assert answer.status_code in {200, 201}, answer.text
        public_id: str = json_of(answer)["id"]
        return public_id

    now = {"payment_method": "pm_card_visa", "confirm": True}
    customer, method = made(CUSTOMERS, {"name": "Ada"}), made(METHODS, RIGHT_METHOD)
    made(f"{METHODS}/{method}/attach", {"customer": customer})
    paid = made(INTENTS, RIGHT_INTENT | now)
    part = {"payment_intent": paid, "amount": 100}
    ids = {
        "customer": customer,
        "method": method,
        "loose": made(METHODS, RIGHT_METHOD),
        "intent": made(INTENTS, RIGHT_INTENT),
        "held": made(INTENTS, RIGHT_INTENT | now | {"capture_method": "manual"}),
        "paid": paid,
        "refund": made(REFUNDS, part),
    }
    return Things(merchant, ids)


@pytest.fixture
def bank(extended_bank: FakeBank) -> FakeBank:
    """One that could do all that is asked."""
    return extended_bank


@pytest.fixture(autouse=True)
def nothing_is_left_behind(api: Api, bank: FakeBank, things: Things) -> Iterator[None]:
    """No event, no row, no claimed key, no call, no card, and nothing asked of the bank."""
    before = api.behind()
    yield
    assert api.behind() == before
    assert bank.requests == []
    assert things.ids


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_body_is_a_json_object_in_utf_8(things: Things, command: str) -> None:
    for name, text in NOT_JSON.items():
        assert refusal(things.send(command, text)) == bad("invalid_json", None), name


@pytest.mark.parametrize("command", COMMANDS)
def test_a_body_is_of_a_known_type_and_not_too_large(things: Things, command: str) -> None:
    text = json.dumps(things.right(command)[1])

    for content_type in ("text/plain", "application/xml", "multipart/form-data; boundary=x"):
        response = things.send(command, text, content_type)
        assert refusal(response) == bad("unsupported_media_type", None, 415)
    whole = text[:-1] + ("," if len(text) > 2 else "") + f'"x": "{"x" * 300_000}"}}'
    assert refusal(things.send(command, whole)) == bad("request_too_large", None, 413)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_field_and_one_that_occurs_twice_are_refused_by_name(
    things: Things, command: str
) -> None:
    right = things.right(command)[1]
    for name in ("unknown", "Amount", "id", "__proto__", "ü", "object", "status"):
        response = things.send(command, json.dumps(right | {name: "x"}))
        assert refusal(response) == bad("unknown_param", name)
        assert refusal(things.send_form(command, {name: "x"})) == bad("unknown_param", name)
    text = json.dumps(right)
    twice = text[:-1] + (", " if right else "") + '"x": 1, "x": 1}'
    assert refusal(things.send(command, twice)) == bad("invalid_param", "x")


@pytest.mark.parametrize("command", COMMANDS)
def test_brackets_that_do_not_fit_and_broken_escapes_are_refused(
    things: Things, command: str
) -> None:
    for form, param in (
        ("x=1&x=1", "x"), ("x[y]=1&x[y]=1", "x[y]"), ("x=1&x[y]=2", "x[y]"), ("x[y]=1&x=2", "x"),
        ("x[y=1", "x[y"), ("[x]=1", "[x]"), ("x[y]z=1", "x[y]z"), ("x[[y]]=1", "x[[y]]"), ("=1", ""),
        ("x" + "[y]" * 25 + "=1", "x" + "[y]" * 25), ("x=%ff", None), ("%ED%A0%80=1", None),
        ("a=1&" * 1001, None),
    ):  # fmt: skip
        assert refusal(things.send(command, form, FORM)) == bad("invalid_param", param), form


# --- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "field"),
    [(command, field) for command, fields in TEXTS.items() for field in fields],
)
def test_a_text_is_one_and_has_no_controls(things: Things, command: str, field: str) -> None:
    right = things.right(command)[1]
    not_text = [raw for raw in NOT_TEXT if raw != "null"]
    if field == "metadata[a]":  # whose values may be numbers
        not_text = ["[]", "{}", '["a"]']
    for raw in (*UNSPEAKABLE, *not_text, f'"{"x" * 5000}"'):
        outer, value = nested(field, raw)
        response = things.send(command, with_raw(right, outer, value))

        status, error_type, code, param = refusal(response)
        long = raw.startswith('"xxx')
        named_nothing = long and code.endswith("_not_found")
        assert (status, error_type, code) == (400, INVALID, "invalid_param") or named_nothing, raw
        assert param is not None
        assert field.startswith(param.split("[")[0])
    for text in ("a%00b", "%0A", "%7F", "%C2%85", "%ff"):
        form = urlencode(list(flat(right))) + f"&{quote(field, safe='[]')}={text}"
        told = refusal(things.send(command, form.removeprefix("&"), FORM))
        assert told[:3] == (400, INVALID, "invalid_param"), text


@pytest.mark.parametrize(
    "raw",
    ["[]", "1", "true", '"x"', '{"a": []}', '{"a": {"b": 1}}', '{"": 1}', '{"a": 9007199254740992}',
     '{"a": 1e400}', json.dumps({"k" * 41: 1}), json.dumps({"a": "x" * 501}),
     json.dumps({str(n): 1 for n in range(51)})],
    ids=lambda raw: raw[:24],
)  # fmt: skip
def test_metadata_is_a_flat_object_of_plain_values(things: Things, raw: str) -> None:
    for command, fields in TEXTS.items():
        if "metadata[a]" in fields:
            text = with_raw(things.right(command)[1], "metadata", raw)
            assert refusal(things.send(command, text)) == bad("invalid_param", "metadata"), command


# --- money, choices, cards ----------------------------------------------------------------------


@pytest.mark.parametrize("command", AMOUNTS)
def test_money_is_a_whole_number_of_minor_units_in_range(things: Things, command: str) -> None:
    right, field = things.right(command)[1], AMOUNTS[command]
    for code, raws in (
        ("invalid_param", NOT_WHOLE), ("amount_too_small", TOO_SMALL), ("amount_too_large", TOO_LARGE),
    ):  # fmt: skip
        for raw in raws:
            response = things.send(command, with_raw(right, field, raw))
            assert refusal(response) == bad(code, field), raw
    for code, texts in (
        (
            "invalid_param",
            ("5000.0", "5e3", "", " 5000", "+5000", "true", "５０００", "5_000", "0x10"),
        ),
        ("amount_too_small", ("0", "-1")),
        ("amount_too_large", ("100000000",)),
    ):
        for text in texts:
            assert refusal(things.send_form(command, {field: text})) == bad(code, field), text


def test_more_than_is_held_and_more_than_is_left_is_refused(things: Things) -> None:
    capture = things.send("capture", json.dumps({"amount_to_capture": 2001}))
    refund = things.send("refund", json.dumps(things.right("refund")[1] | {"amount": 1901}))

    assert refusal(capture) == bad("amount_too_large", "amount_to_capture")
    assert refusal(refund) == (409, INVALID, "refund_exceeds_payment", "amount")


@pytest.mark.parametrize(
    "value", ["XXX", "US", "USDD", "", " USD", "ＵＳＤ", 840, True, [], ["usd"], {}, "xau"]
)
def test_a_currency_is_an_iso_4217_code(things: Things, value: Any) -> None:
    for command in ("create", "update"):
        text = json.dumps(things.right(command)[1] | {"currency": value})
        assert refusal(things.send(command, text)) == bad("invalid_currency", "currency")


@pytest.mark.parametrize(
    ("command", "field", "values"),
    [
        ("create", "capture_method", ("", "Manual", 1, True, [], "auto")),
        ("create", "confirmation_method", ("", "auto", 1, None, [])),
        ("create", "confirm", ("yes", 1, None, [], "", "true")),
        ("create", "payment_method_types", ("card", 1, {}, [1], [["card"]])),
        ("create", "shipping", (1, [], "x", {"name": "a"}, {"address": {}})),
        ("create", "payment_method_data", (1, [], "x", {}, {"type": "card"}, {"type": "iban"})),
        ("create", "payment_method_options", (1, "x", {"iban": {}}, {"card": 1})),
        ("create", "expand", ("customer", 1, {"a": "b"}, [1], ["a.b.c.d.e"], ["customer"] * 21)),
        ("cancel", "cancellation_reason", ("", "because", 1, [], True)),
        ("confirm", "capture_method", ("", "Manual", 1)),
        ("refund", "reason", ("because", "", "DUPLICATE", 1, [], True)),
        ("method", "type", ("", "iban", 1, None)),
        ("method", "card", (None, [], "4111111111111111", 1, "")),
        ("method", "billing_details", (1, [], "x", {"ssn": "1"})),
        ("change method", "card", (1, [], "x", {"number": "4111111111111111"})),
        ("customer", "address", (1, [], "x", {"planet": "Earth"})),
    ],
)
def test_a_field_is_what_it_is_to_be(
    things: Things, command: str, field: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        response = things.send(command, json.dumps(things.right(command)[1] | {field: value}))

        status, error_type, code, param = refusal(response)
        codes = {"invalid_param", "missing_param", "unknown_param"}
        assert (status, error_type, code in codes) == (400, INVALID, True), (value, code)
        assert param is not None
        assert param.split("[")[0] == field, value
        assert VISA not in response.text


@pytest.mark.parametrize("field", MALFORMED)
def test_a_malformed_card_is_a_400_that_names_the_field(things: Things, field: str) -> None:
    for value in MALFORMED[field]:
        if value is None:
            continue
        card = GOOD_CARD | {field: value}
        plain = things.send("method", json.dumps({"type": "card", "card": card}))
        given = {"payment_method_data": {"type": "card", "card": card}}
        on_the_way = things.send("confirm", json.dumps(given))

        assert refusal(plain) == bad("invalid_param", f"card[{field}]"), value
        assert refusal(on_the_way) == bad("invalid_param", f"payment_method_data[card][{field}]")
        for response in (plain, on_the_way):
            assert VISA not in response.text


@pytest.mark.parametrize("name", ["confirm[0]", "confirm[]", "confirm[a]"])
def test_a_truth_in_a_form_is_no_list_and_no_object(things: Things, name: str) -> None:
    response = things.send_form("create", {"amount": "500", "currency": "usd", name: "true"})

    assert refusal(response) == bad("invalid_param", "confirm")


@pytest.mark.parametrize("field", ["number", "exp_month", "exp_year"])
def test_a_card_has_what_makes_it_one(things: Things, field: str) -> None:
    card = {name: value for name, value in GOOD_CARD.items() if name != field}

    response = things.send("method", json.dumps({"type": "card", "card": card}))

    assert refusal(response) == bad("missing_param", f"card[{field}]")


@pytest.mark.parametrize(
    ("card", "code", "param"),
    [
        ({"number": "4111111111111112"}, "incorrect_number", "card[number]"),
        ({"exp_year": 2024}, "expired_card", "card[exp_year]"),
    ],
)
def test_a_card_that_is_no_good_is_a_402(
    things: Things, card: dict[str, Any], code: str, param: str
) -> None:
    whole = GOOD_CARD | card

    plain = things.send("method", json.dumps({"type": "card", "card": whole}))
    given = {"payment_method_data": {"type": "card", "card": whole}}
    on_the_way = things.send("confirm", json.dumps(given))

    assert refusal(plain) == (402, "card_error", code, param)
    within = param.replace("card[", "payment_method_data[card][")
    assert refusal(on_the_way) == (402, "card_error", code, within)


# --- ids ----------------------------------------------------------------------------------------


def strange_ids(one: str) -> list[str]:
    prefix, _, suffix = one.partition("_")
    return [
        f"{prefix}_", suffix, f"pay_{suffix}", one.upper(), one[:-1], one + "0", "x" * 3000,
        f"{prefix}_" + "u" * 26, f"{prefix}_8" + "0" * 25, f"{prefix}_" + "0" * 26, "%00", "'; --",
        "%F0%9F%92%B3", "%20" + one,
    ]  # fmt: skip


@pytest.mark.parametrize("path", ONES)
def test_an_id_that_names_nothing_is_the_same_404(things: Things, path: str) -> None:
    for text in strange_ids(things.ids["intent"] if path.startswith(INTENTS) else "xx_" + "1" * 26):
        response = things.merchant.get(path + text)
        assert refusal(response) == (404, MISSING, ONES[path], None), text


@pytest.mark.parametrize("command", [name for name in COMMANDS if "{" in COMMANDS[name][0]])
def test_a_command_on_what_is_not_there_is_the_same_404(things: Things, command: str) -> None:
    path, right = things.right(command)
    (own,) = [one for one in things.ids.values() if one in path]
    for text in strange_ids(own):
        response = things.merchant.post(path.replace(own, text), right)
        assert refusal(response)[:2] == (404, MISSING), text


@pytest.mark.parametrize(
    ("command", "field", "code"),
    [
        ("create", "customer", "customer_not_found"),
        ("create", "customer_id", "customer_not_found"),
        ("create", "payment_method", "payment_method_not_found"),
        ("update", "customer", "customer_not_found"),
        ("confirm", "payment_method", "payment_method_not_found"),
        ("attach", "customer", "customer_not_found"),
        ("refund", "payment_intent", "payment_intent_not_found"),
        ("refund", "charge", "payment_not_found"),
    ],
)
def test_a_reference_to_nothing_is_a_404_that_names_the_field(
    things: Things, command: str, field: str, code: str
) -> None:
    path, right = things.right(command)
    right.pop("payment_intent", None)
    for name in ("cus_", "pm_nothing", "pi_" + "0" * 26, "ch_1", "CUS_1", "'; --", "x" * 200):
        response = things.merchant.post(path, right | {field: name})
        assert refusal(response) == (404, MISSING, code, field), name


# --- queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", LISTS)
def test_a_wrong_query_is_refused_by_name(things: Things, path: str) -> None:
    for query, code, param in (
        *((f"limit={value}", "invalid_param", "limit") for value in (
            "0", "101", "-1", "1.0", "abc", "", "%EF%BC%91", "9" * 5000, "true",
        )),
        *((f"created[gte]={value}", "invalid_param", "created[gte]") for value in ("", "now", "1.5")),
        ("created=1", "invalid_param", "created"),
        ("created[eq]=1", "unknown_param", "created[eq]"),
        ("limit=1&limit=1", "invalid_param", "limit"),
        ("unknown=1", "unknown_param", "unknown"),
        ("Limit=1", "unknown_param", "Limit"),
        ("limit[=1", "invalid_param", "limit["),
        ("starting_after=x&ending_before=x", "invalid_param", None),
        ("limit=%ff", "invalid_param", None),
        ("limit=%00", "invalid_param", "limit"),
        ("expand=data", "invalid_param", "expand"),
        ("expand[]=a.b.c.d.e", "invalid_param", "expand"),
        ("expand[]=nothing", "invalid_param", "expand[0]"),
    ):  # fmt: skip
        response = things.merchant.get(f"{things.path(path)}?{query}")
        assert refusal(response) == bad(code, param), query


@pytest.mark.parametrize("path", LISTS)
def test_a_cursor_that_names_nothing_is_a_404_that_names_it(things: Things, path: str) -> None:
    for cursor in ("starting_after", "ending_before"):
        for text in ("", "x", "pi_" + "0" * 26, "evt_" + "0" * 26, "txn_" + "0" * 26, "'; --"):
            response = things.merchant.get(f"{things.path(path)}?{cursor}={text}")
            assert refusal(response)[::3] == (404, cursor), text


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        (METHODS, "type=iban", "type"),
        (TRANSACTIONS, "type=payout", "type"),
        (TRANSACTIONS, "currency=xxx", "currency"),
        (TRANSACTIONS, "source[]=x", "source"),
        (REFUNDS, "status=done", "status"),
        (REFUNDS, "charge=ch_x&payment_id=pay_x", "charge"),
        ("/v1/events", "type=nothing.at_all", "type"),
        ("/v1/events", "types[]=charge.succeeded&type=charge.failed", None),
        ("/v1/balance", "as_of=yesterday", "as_of"),
        ("/v1/balance", "customer_id=", "customer_id"),
    ],
)
def test_a_filter_is_one_that_there_is(
    things: Things, path: str, query: str, param: str | None
) -> None:
    status, error_type, code, named = refusal(things.merchant.get(f"{path}?{query}"))

    assert (status, error_type) == (400, INVALID)
    assert code in {"invalid_param", "invalid_currency"}
    assert named == param


@pytest.mark.parametrize("path", SEARCHES)
def test_a_search_that_is_none_is_refused(things: Things, path: str) -> None:
    for query in (
        "", "x", "x:", "x:'y'", "metadata:'a'", "metadata['a']", "created>'x'", "created>now",
        "created>1 OR created<2 AND created>3", "created>1 AND", "('a')", "created>1;--", "created:1'",
        " AND ".join(["created>1"] * 11), "created>1 " + "x" * 3000, "metadata['a']~'b'",
    ):  # fmt: skip
        response = things.merchant.get(path, query_string={"query": query})
        assert refusal(response) == bad("invalid_param", "query"), query
    assert refusal(things.merchant.get(path)) == bad("missing_param", "query")
    nul = things.merchant.get(f"{path}?query=%00")
    assert refusal(nul) == bad("invalid_param", "query")
    page = things.merchant.get(path, query_string={"query": "created>1", "page": "nothing"})
    assert refusal(page)[0] in {400, 404}


# --- references that there are none of ------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_what_cannot_be_expanded_is_refused_before_any_effect(things: Things, command: str) -> None:
    for place, paths in ((0, ["nothing"]), (0, ["data"]), (0, [""]), (0, ["customer.nothing"])):
        response = things.send(command, json.dumps(things.right(command)[1] | {"expand": paths}))
        assert refusal(response) == bad("invalid_param", f"expand[{place}]"), paths
        form = {f"expand[{place}]": paths[0]}
        assert refusal(things.send_form(command, form)) == bad("invalid_param", f"expand[{place}]")


# --- who may ------------------------------------------------------------------------------------


def test_a_wrong_secret_is_the_intents_404(things: Things, api: Api) -> None:
    merchant, intent = things.merchant, things.ids["intent"]
    browser = api.merchant(merchant.merchant, type=KeyType.PUBLISHABLE)
    others = json_of(merchant.get(f"{INTENTS}/{things.ids['paid']}"))["client_secret"]
    missing = (404, MISSING, "payment_intent_not_found", None)

    for secret in ("", "x", f"{intent}_secret_", others, others.upper(), "%00", "é"):
        for caller in (browser, merchant):
            told = caller.get(f"{INTENTS}/{intent}", query_string={"client_secret": secret})
            assert refusal(told) == missing, secret
            body = {"payment_method": "pm_card_visa", "client_secret": secret}
            confirmed = caller.post(f"{INTENTS}/{intent}/confirm", body)
            assert refusal(confirmed) == missing, secret
    without = browser.post(f"{INTENTS}/{intent}/confirm", {"payment_method": "pm_card_visa"})
    assert refusal(without) == missing


def test_a_live_publishable_key_makes_no_intents(api: Api, merchant: Caller) -> None:
    browser = api.merchant(merchant.merchant, mode=Mode.LIVE, type=KeyType.PUBLISHABLE)

    response = browser.post(INTENTS, RIGHT_INTENT)

    assert refusal(response) == (403, "permission_error", "publishable_key_not_allowed", None)


def test_stripes_clients_are_told_in_stripes_words(things: Things) -> None:
    stripe = things.merchant.speaking_stripe()

    answers = [
        stripe.post(INTENTS, {"currency": "usd"}),
        stripe.post(INTENTS, RIGHT_INTENT | {"x": 1}),
        stripe.post(INTENTS, RIGHT_INTENT | {"description": 1}),
        stripe.get(f"{INTENTS}/pi_x"),
        stripe.post(f"{INTENTS}/{things.ids['paid']}/cancel", {}),
    ]

    assert [refusal(each)[:3] for each in answers] == [
        (400, INVALID, "parameter_missing"),
        (400, INVALID, "parameter_unknown"),
        (400, INVALID, "parameter_invalid"),
        (404, INVALID, "resource_missing"),
        (400, INVALID, "payment_intent_unexpected_state"),
    ]
