"""Whatever is sent: an error in the contract's shape that names the field, and nothing left behind."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import pytest
from werkzeug.test import TestResponse

from tests.api.an_api import GOOD_CARD, Api, Caller, an_authorization, refusal
from tests.fakes import FakeBank

JSON: Final = "application/json"
FORM: Final = "application/x-www-form-urlencoded"
INVALID: Final = "invalid_request_error"
POSTS: Final = ("/v1/authorizations", "/v1/captures", "/v1/voids", "/v1/refunds")
WITH_AMOUNT: Final = ("/v1/authorizations", "/v1/captures", "/v1/refunds")
LISTS: Final = ("/v1/receipts", "/v1/refunds")

Refused = tuple[int, str, str, str | None]


def bad(code: str, param: str | None, status: int = 400) -> Refused:
    return status, INVALID, code, param


@pytest.fixture(autouse=True)
def nothing_is_left_behind(api: Api, bank: FakeBank, payment_id: str) -> Iterator[None]:
    """No event, no receipt, no refund, no claimed key, no call, and nothing asked of the bank."""
    before, asked = api.behind(), len(bank.requests)
    yield
    assert api.behind() == before
    assert len(bank.requests) == asked
    assert payment_id


@pytest.fixture
def payment_id(merchant: Caller) -> str:
    """A payment that could be captured and voided, if the request were right."""
    return str(merchant.authorized()["payment_id"])


def right_body(path: str, payment_id: str) -> dict[str, Any]:
    return an_authorization() if path == "/v1/authorizations" else {"payment_id": payment_id}


def send_json(merchant: Caller, path: str, text: str | bytes) -> TestResponse:
    return merchant.post(path, data=text, content_type=JSON)


def send_form(merchant: Caller, path: str, text: str | bytes) -> TestResponse:
    return merchant.post(path, data=text, content_type=FORM)


def form_of(body: Mapping[str, Any]) -> str:
    """The body in bracket notation."""
    pairs = []
    for name, value in body.items():
        inner = (
            {f"{name}[{key}]": item for key, item in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
        pairs += [(key, str(item)) for key, item in inner.items()]
    return urlencode(pairs)


def with_raw(body: Mapping[str, Any], name: str, raw: str) -> str:
    """JSON in which the field's value is `raw`, right or wrong."""
    rest = {key: value for key, value in body.items() if key != name}
    return json.dumps(rest)[:-1] + ("," if rest else "") + f'"{name}": {raw}}}'


# --- money --------------------------------------------------------------------------------------

NOT_WHOLE: Final = (
    "5000.0", "5000.5", "5e3", "1e3", "1E400", "-1e400", "-0.0", '"5000"', '""', "true", "false",
    "[]", "[5000]", "{}", '{"value": 5000}',
)  # fmt: skip
TOO_SMALL: Final = ("0", "-0", "-1", "-5000", str(-(2**63)), "-" + "9" * 400)
TOO_LARGE: Final = ("100000000", str(2**31), str(2**63), str(2**64), "9" * 400, "9" * 4000)


@pytest.mark.parametrize("path", WITH_AMOUNT)
@pytest.mark.parametrize(
    ("raws", "code"),
    [
        (NOT_WHOLE, "invalid_param"),
        (TOO_SMALL, "amount_too_small"),
        (TOO_LARGE, "amount_too_large"),
        (("9" * 5000, "NaN", "Infinity", "-Infinity", "+1", "0x10", "05", "1_000", "1."), None),
    ],
    ids=["not whole", "too small", "too large", "not JSON"],
)
def test_money_is_a_whole_number_of_minor_units_in_range(
    merchant: Caller, payment_id: str, path: str, raws: tuple[str, ...], code: str | None
) -> None:
    for raw in raws:
        response = send_json(merchant, path, with_raw(right_body(path, payment_id), "amount", raw))

        expected = bad("invalid_json", None) if code is None else bad(code, "amount")
        assert refusal(response) == expected, raw


def test_an_authorization_without_an_amount_is_refused(merchant: Caller) -> None:
    assert refusal(merchant.authorize(amount=None)) == bad("missing_param", "amount")
    with_null = merchant.post("/v1/authorizations", an_authorization() | {"amount": None})
    assert refusal(with_null) == bad("invalid_param", "amount")


@pytest.mark.parametrize("path", WITH_AMOUNT)
@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("5000.0", "invalid_param"),
        ("5e3", "invalid_param"),
        ("", "invalid_param"),
        (" 5000", "invalid_param"),
        ("+5000", "invalid_param"),
        ("true", "invalid_param"),
        ("５０００", "invalid_param"),
        ("٥٠٠٠", "invalid_param"),
        ("5_000", "invalid_param"),
        ("0x10", "invalid_param"),
        ("9" * 5000, "invalid_param"),
        ("0", "amount_too_small"),
        ("-1", "amount_too_small"),
        ("100000000", "amount_too_large"),
    ],
)
def test_money_in_a_form_is_digits_and_no_more(
    merchant: Caller, payment_id: str, path: str, *, text: str, code: str
) -> None:
    response = send_form(merchant, path, form_of(right_body(path, payment_id) | {"amount": text}))

    assert refusal(response) == bad(code, "amount")


@pytest.mark.parametrize(
    "raw",
    ['"XXX"', '"US"', '"USDD"', '""', '" USD"', '"USD "', '"ＵＳＤ"', '"ußd"', "840", "true", "[]",
     '["USD"]', "{}", '"xau"', '"uſd"'],
)  # fmt: skip
def test_a_currency_is_an_iso_4217_code(merchant: Caller, raw: str) -> None:
    text = with_raw(an_authorization(), "currency", raw)

    response = send_json(merchant, "/v1/authorizations", text)

    assert refusal(response) == bad("invalid_currency", "currency")


# --- cards --------------------------------------------------------------------------------------


MALFORMED: Final[Mapping[str, Sequence[Any]]] = {
    "number": (
        "", "4", "4" * 12, "4" * 20, "4111 1111 1111 1111", "4111-1111-1111-1111", 4111111111111111,
        "411111111111111x", "４１１１１１１１１１１１１１１１", "٤" * 16, " 4111111111111111",
        "4111111111111111\n", None, True, [], {}, ["4111111111111111"], 4.1e15,
    ),
    "cvc": (
        "", "1", "12", "12345", "12a", "abc", "１２３", "12 ", " 123", 123, None, True, [], {}, "123\n",
        "-12", "1.2",
    ),
    "exp_month": (0, 13, -1, 1.0, 12.0, "12", "", None, True, [], 2**63, 10**400, "Dec"),
    "exp_year": (30, 1999, 2100, 0, -2030, 2030.0, "2030", "", None, True, [], 2**63, 10**400),
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in MALFORMED.items() for value in values],
    ids=lambda value: repr(value)[:20],
)
def test_a_malformed_card_is_a_400_that_names_the_field(
    merchant: Caller, field: str, value: Any
) -> None:
    response = merchant.authorize(card=GOOD_CARD | {field: value})

    assert refusal(response) == bad("invalid_param", f"card[{field}]")


@pytest.mark.parametrize("field", ["number", "exp_month", "exp_year", "cvc"])
def test_a_card_has_all_of_its_fields(merchant: Caller, field: str) -> None:
    card = {name: value for name, value in GOOD_CARD.items() if name != field}

    response = merchant.authorize(card=card)

    assert refusal(response) == bad("missing_param", f"card[{field}]")


@pytest.mark.parametrize(
    ("field", "text"),
    [("exp_month", "00"), ("exp_month", "1.0"), ("exp_month", "１２"), ("exp_year", "30"),
     ("exp_year", ""), ("number", "4" * 12), ("cvc", "12a"), ("cvc", "１２３")],
)  # fmt: skip
def test_a_malformed_card_in_a_form_is_a_400_too(merchant: Caller, field: str, text: str) -> None:
    form = form_of(an_authorization() | {"card": GOOD_CARD | {field: text}})

    response = send_form(merchant, "/v1/authorizations", form)

    assert refusal(response) == bad("invalid_param", f"card[{field}]")


@pytest.mark.parametrize("value", ["4111111111111111", [], [GOOD_CARD], 1, True, ""])
def test_a_card_is_an_object(merchant: Caller, value: Any) -> None:
    assert refusal(merchant.authorize(card=value)) == bad("invalid_param", "card")


@pytest.mark.parametrize(
    "number", ["4111111111111112", "0000000000000001", "9" * 13, "1234567890123456"]
)
def test_a_number_that_fails_luhn_is_a_402(merchant: Caller, number: str) -> None:
    response = merchant.authorize(card=GOOD_CARD | {"number": number})

    assert refusal(response) == (402, "card_error", "incorrect_number", "card[number]")


@pytest.mark.parametrize(("month", "year"), [(12, 2000), (1, 2024), (10, 2025)])
def test_an_expiry_in_the_past_is_a_402(merchant: Caller, month: int, year: int) -> None:
    response = merchant.authorize(card=GOOD_CARD | {"exp_month": month, "exp_year": year})

    assert refusal(response) == (402, "card_error", "expired_card", "card[exp_year]")


# --- texts --------------------------------------------------------------------------------------

UNSPEAKABLE: Final = (
    '"a\\u0000b"', '"\\u0000"', '"a\\nb"', '"a\\tb"', '"\\u001b[31m"', '"\\u007f"', '"\\u0085"',
    '"\\u009f"', '"\\ud800"', '"\\udfff"', '"a\\udc00\\ud800b"', '"\\ud83d"',
)  # fmt: skip
NOT_TEXT: Final = ("1", "1.5", "true", "null", "[]", "{}", '["a"]')


@pytest.mark.parametrize("field", ["order_id", "customer_id"])
@pytest.mark.parametrize(
    "raws",
    [
        UNSPEAKABLE,
        NOT_TEXT,
        ('""', '" "', '"   "', '"\\u00a0"', '"\\u3000\\u2003"', f'"{"x" * 256}"'),
    ],
    ids=["unspeakable", "not text", "blank or long"],
)
def test_a_reference_is_a_text_of_1_to_255_characters(
    merchant: Caller, field: str, raws: tuple[str, ...]
) -> None:
    for raw in raws:
        text = with_raw(an_authorization(), field, raw)

        response = send_json(merchant, "/v1/authorizations", text)

        assert refusal(response) == bad("invalid_param", field), raw


@pytest.mark.parametrize("raw", UNSPEAKABLE)
def test_control_characters_and_lone_surrogates_are_refused_wherever_they_are(
    merchant: Caller, payment_id: str, raw: str
) -> None:
    fields = {"payment_id": payment_id}
    answers = {
        "payment_id": send_json(merchant, "/v1/captures", with_raw({}, "payment_id", raw)),
        "reason": send_json(merchant, "/v1/refunds", with_raw(fields, "reason", raw)),
        "metadata[a]": send_json(
            merchant, "/v1/refunds", with_raw(fields, "metadata", f'{{"a": {raw}}}')
        ),
    }

    for param, response in answers.items():
        assert refusal(response) == bad("invalid_param", param)
    for name in ("metadata", "unknown"):
        text = with_raw(fields, name, f'{{{raw}: "a"}}')
        status, _, code, param_of_name = refusal(send_json(merchant, "/v1/refunds", text))
        assert (status, code) == (400, "invalid_param")
        assert param_of_name is not None
        assert param_of_name.startswith(f"{name}[")


@pytest.mark.parametrize(
    "raw", [b"\x00", b"\x01", b"\x1f", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\n"]
)
def test_raw_controls_and_broken_utf_8_are_not_json(
    merchant: Caller, payment_id: str, raw: bytes
) -> None:
    for text in (
        b'{"payment_id": "' + payment_id.encode() + raw + b'"}',
        b'{"payment_id' + raw + b'": "a"}',
    ):
        assert refusal(send_json(merchant, "/v1/captures", text)) == bad("invalid_json", None)


@pytest.mark.parametrize(
    "text",
    ["payment_id=a%00b", "payment_id=%0A", "payment_id=%7F", "payment_id=%C2%85"],
)
@pytest.mark.parametrize("path", POSTS)
def test_controls_in_a_form_are_refused(merchant: Caller, path: str, text: str) -> None:
    assert refusal(send_form(merchant, path, text)) == bad("invalid_param", "payment_id")


# --- bodies -------------------------------------------------------------------------------------

NOT_JSON: Final[Mapping[str, bytes]] = {
    "half": b'{"payment_id": "pay',
    "two": b"{}{}",
    "trailing comma": b'{"payment_id": "a",}',
    "comment": b'{"payment_id": "a" /* b */}',
    "single quotes": b"{'payment_id': 'a'}",
    "bare": b"payment_id",
    "NaN": b'{"amount": NaN}',
    "infinity": b'{"amount": -Infinity}',
    "list": b"[]",
    "list of objects": b'[{"payment_id": "a"}]',
    "null": b"null",
    "number": b"5000",
    "string": b'"payment_id"',
    "true": b"true",
    "UTF-16": '{"payment_id": "a"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"payment_id": "a"}'.encode("utf-16-le"),
    "UTF-32": '{"payment_id": "a"}'.encode("utf-32"),
    "BOM": b"\xef\xbb\xbf{}",
    "latin-1": b'{"payment_id": "\xe9"}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep list within": b'{"metadata": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    "unclosed": b"[" * 200_000,
    "21 deep": b'{"a":' * 22 + b"1" + b"}" * 22,
    "long number": b'{"amount": ' + b"1" * 5000 + b"}",
    "gzip": b"\x1f\x8b\x08\x00abc",
    "NUL": b"\x00",
}


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_is_a_json_object_in_utf_8(merchant: Caller, path: str, name: str) -> None:
    assert refusal(send_json(merchant, path, NOT_JSON[name])) == bad("invalid_json", None)


@pytest.mark.parametrize("body", [None, b"", b"  \r\n\t"])
@pytest.mark.parametrize("content_type", [JSON, FORM, ""])
@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/authorizations", "order_id"),
        ("/v1/captures", "payment_id"),
        ("/v1/voids", "payment_id"),
        ("/v1/refunds", "payment_id"),
    ],
)
def test_without_a_body_the_first_field_is_missing(
    merchant: Caller, path: str, *, param: str, body: bytes | None, content_type: str
) -> None:
    response = merchant.post(path, data=body, headers={"Content-Type": content_type})

    assert refusal(response) == bad("missing_param", param)


@pytest.mark.parametrize("path", POSTS)
def test_a_field_that_occurs_twice_is_refused(merchant: Caller, payment_id: str, path: str) -> None:
    text = json.dumps(right_body(path, payment_id))
    twice = text[:-1] + ', "metadata": {"a": 1, "a": 1}}'
    same = text[:-1] + ', "x": 1, "x": 1}'

    assert refusal(send_json(merchant, path, twice)) == bad("invalid_param", "a")
    assert refusal(send_json(merchant, path, same)) == bad("invalid_param", "x")


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    "name", ["unknown", "Payment_id", "payment-id", "", "id", "__proto__", "ü"]
)
def test_an_unknown_field_is_refused_by_name(
    merchant: Caller, payment_id: str, path: str, name: str
) -> None:
    response = merchant.post(path, right_body(path, payment_id) | {name: "x"})

    status, error_type, code, param = refusal(response)
    assert (status, error_type, code) == (400, INVALID, "unknown_param")
    assert param == (name or None) or (name == "" and param == "")


def test_an_unknown_field_within_is_refused_by_its_whole_name(merchant: Caller) -> None:
    response = merchant.authorize(card=GOOD_CARD | {"name": "A. Shopper"})

    assert refusal(response) == bad("unknown_param", "card[name]")


# --- forms --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ("payment_id=a&payment_id=a", "payment_id"),
        ("card[number]=1&card[number]=1", "card[number]"),
        ("card=1&card[number]=2", "card[number]"),
        ("card[number]=2&card=1", "card"),
        ("card[number]=1&card[number][a]=2", "card[number][a]"),
        ("card[number=1", "card[number"),
        ("card]number[=1", "card]number["),
        ("[card]=1", "[card]"),
        ("card[number]x=1", "card[number]x"),
        ("card[[number]]=1", "card[[number]]"),
        ("=1", ""),
        ("a" + "[b]" * 25 + "=1", "a" + "[b]" * 25),
    ],
)
@pytest.mark.parametrize("path", POSTS)
def test_brackets_that_do_not_fit_are_refused(
    merchant: Caller, path: str, *, form: str, param: str
) -> None:
    assert refusal(send_form(merchant, path, form)) == bad("invalid_param", param)


@pytest.mark.parametrize(
    "form",
    [b"payment_id=%ff", b"payment_id=%C0%80", b"%ED%A0%80=1", b"payment_id=\xff", "payment_id=é".encode(),
     b"a=1&" * 1001],
    ids=["ff", "overlong", "surrogate", "raw", "raw UTF-8", "too many"],
)  # fmt: skip
@pytest.mark.parametrize("path", POSTS)
def test_a_form_is_percent_encoded_utf_8(merchant: Caller, path: str, form: bytes) -> None:
    assert refusal(send_form(merchant, path, form)) == bad("invalid_param", None)


@pytest.mark.parametrize("text", ["pay_%zz", "pay_%", "pay_%4", "pay_%u0041"])
def test_a_percent_sign_that_encodes_nothing_names_no_payment(merchant: Caller, text: str) -> None:
    response = send_form(merchant, "/v1/captures", f"payment_id={text}")

    assert refusal(response) == (404, "resource_missing", "payment_not_found", "payment_id")


def test_json_that_is_sent_as_a_form_is_refused(merchant: Caller) -> None:
    text = json.dumps(an_authorization())

    status, error_type, _, _ = refusal(send_form(merchant, "/v1/authorizations", text))

    assert (status, error_type) == (400, INVALID)


# --- metadata -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [
        "[]", "1", "true", '"x"', "[1]", '{"a": null}', '{"a": []}', '{"a": {}}', '{"a": {"b": 1}}',
        '{"": 1}', '{"a": 9007199254740992}', '{"a": -9007199254740992}', '{"a": 1e400}', '{"a": 1e300}',
        json.dumps({"k" * 41: 1}), json.dumps({"a": "x" * 501}),
        json.dumps({str(n): 1 for n in range(51)}), json.dumps({"a": 10**400}),
    ],
    ids=lambda raw: raw[:24],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/authorizations", "/v1/refunds"])
def test_metadata_is_a_flat_object_of_plain_values(
    merchant: Caller, payment_id: str, path: str, raw: str
) -> None:
    text = with_raw(right_body(path, payment_id), "metadata", raw)

    assert refusal(send_json(merchant, path, text)) == bad("invalid_param", "metadata")


# --- ids and names of things --------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/captures", "/v1/voids", "/v1/refunds"])
def test_an_id_that_names_no_payment_is_the_same_404(
    api: Api, merchant: Caller, payment_id: str, path: str
) -> None:
    suffix = payment_id.removeprefix("pay_")
    for wrong in (
        "", "pay_", suffix, f"ch_{suffix}", f"rfnd_{suffix}", f"PAY_{suffix}", payment_id.upper(),
        f" {payment_id}", f"{payment_id} ", payment_id[:-1], payment_id + "0", "pay_" + "u" * 26,
        "pay_" + "7" + "z" * 25, "pay_" + "8" + "0" * 25, "pay_" + "0" * 26, "x" * 100_000, "ｐay_", "'; --",
    ):  # fmt: skip
        response = merchant.post(path, {"payment_id": wrong})

        assert refusal(response) == (404, "resource_missing", "payment_not_found", "payment_id")


@pytest.mark.parametrize("value", [1, True, [], {}, ["pay_"], 1.5])
@pytest.mark.parametrize("path", ["/v1/captures", "/v1/voids", "/v1/refunds"])
def test_an_id_is_a_text(merchant: Caller, path: str, value: Any) -> None:
    response = merchant.post(path, {"payment_id": value})

    assert refusal(response) == bad("invalid_param", "payment_id")


@pytest.mark.parametrize("value", ["because", "", "DUPLICATE", 1, [], True])
def test_a_reason_is_one_of_three(merchant: Caller, payment_id: str, value: Any) -> None:
    response = merchant.refund(payment_id, reason=value)

    assert refusal(response) == bad("invalid_param", "reason")


@pytest.mark.parametrize("value", [1, True, [], {}, "x" * 256])
def test_a_method_is_a_name(merchant: Caller, value: Any) -> None:
    response = merchant.authorize(card=None, payment_method=value)

    assert refusal(response) == bad("invalid_param", "payment_method")


# --- queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        *((f"limit={value}", "invalid_param", "limit") for value in (
            "0", "101", "-1", "1.0", "abc", "", "%20", "%EF%BC%91", "9" * 5000, "1e1", "+5", "0x5", "true",
        )),
        *((f"created[gte]={value}", "invalid_param", "created[gte]") for value in (
            "", "-1", "now", "1.5", "9" * 15, "2026-01-01",
        )),
        ("created=1", "invalid_param", "created"),
        ("created[eq]=1", "unknown_param", "created[eq]"),
        ("created[]=1", "invalid_param", "created"),
        ("status=", "invalid_param", "status"),
        ("status=nonsense", "invalid_param", "status"),
        ("status=AUTHORIZED", "invalid_param", "status"),
        ("status[]=authorized", "invalid_param", "status"),
        ("status=pending&status=pending", "invalid_param", "status"),
        ("limit=1&limit=1", "invalid_param", "limit"),
        ("unknown=1", "unknown_param", "unknown"),
        ("Limit=1", "unknown_param", "Limit"),
        ("limit", "invalid_param", "limit"),
        ("=1", "invalid_param", ""),
        ("limit[=1", "invalid_param", "limit["),
        ("starting_after=pay_x&ending_before=pay_x", "invalid_param", None),
        ("limit=%ff", "invalid_param", None),
        ("limit=%00", "invalid_param", "limit"),
        ("%00=1", "invalid_param", "?"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)  # fmt: skip
@pytest.mark.parametrize("path", LISTS)
def test_a_wrong_query_is_refused_by_name(
    merchant: Caller, path: str, *, query: str, code: str, param: str | None
) -> None:
    response = merchant.get(f"{path}?{query}")

    assert refusal(response) == bad(code, param)


def test_what_refers_to_nothing_is_not_expanded(merchant: Caller) -> None:
    assert refusal(merchant.get("/v1/receipts?expand[]=data")) == bad("unknown_param", "expand")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("order_id=", "order_id"),
        ("order_id=%20", "order_id"),
        (f"order_id={'x' * 256}", "order_id"),
        ("customer_id=%09", "customer_id"),
        ("order_id=a%00", "order_id"),
        ("order_id[]=a", "order_id"),
    ],
)
def test_a_wrong_reference_in_a_query_is_refused_by_name(
    merchant: Caller, query: str, param: str
) -> None:
    assert refusal(merchant.get(f"/v1/receipts?{query}")) == bad("invalid_param", param)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *((f"version={value}", "version") for value in (
            "0", "-1", "", "1.0", "x", "9" * 10, "9" * 5000, "1%00",
        )),
        *((f"as_of={value}", "as_of") for value in (
            "", "yesterday", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "-1",
            "9" * 15, "9" * 5000, "2026-01-01T25:00:00Z", "NaN", "1e9", "12:00:00Z", "%00", "T",
            "2026-02-30T00:00:00Z", quote("٢٠٢٦-01-01T00:00:00Z"),
        )),
        ("as_of=1&version=1", None),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else None,
)  # fmt: skip
def test_a_wrong_moment_is_refused_by_name(
    merchant: Caller, payment_id: str, query: str, param: str | None
) -> None:
    response = merchant.get(f"/v1/receipts/{payment_id}?{query}")

    assert refusal(response) == bad("invalid_param", param)


@pytest.mark.parametrize("query", ["a=1", "payment_id=x", "limit=1", "version=1"])
def test_where_no_parameters_are_taken_none_are_given(
    merchant: Caller, payment_id: str, query: str
) -> None:
    name = query.partition("=")[0]
    for path in ("/v1/orders/x", "/v1/refunds/rfnd_x"):
        assert refusal(merchant.get(f"{path}?{query}")) == bad("unknown_param", name)
    for path in POSTS:
        response = merchant.post(f"{path}?{query}", right_body(path, payment_id))
        assert refusal(response) == bad("unknown_param", name)


@pytest.mark.parametrize(
    "last", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "253402300799", "0"]
)
def test_the_ends_of_time_are_moments(merchant: Caller, payment_id: str, last: str) -> None:
    response = merchant.get(f"/v1/receipts/{payment_id}?as_of={last}")

    assert response.status_code in {200, 404}
