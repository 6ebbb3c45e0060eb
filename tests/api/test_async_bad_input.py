"""Whatever the asynchronous family is sent: an error in its own words that names the field, and nothing
left behind."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import pytest
from werkzeug.test import TestResponse

from tests.api.an_api import Api, Caller, json_of, refusal
from tests.api.test_bad_input import (
    FORM,
    JSON,
    NOT_JSON,
    NOT_TEXT,
    NOT_WHOLE,
    TOO_LARGE,
    TOO_SMALL,
    UNSPEAKABLE,
    with_raw,
)
from tests.fakes import FakeBank

INVALID: Final = "invalid_request_error"
ROUTES: Final = ("create", "confirm", "refund")
WITH_AMOUNT: Final = ("create", "refund")

Refused = tuple[int, str, str, str | None]


def wrong(code: str, param: str | None) -> Refused:
    return 422, "validation_error", code, param


def unreadable(code: str, param: str | None = None, status: int = 400) -> Refused:
    return status, INVALID, code, param


@pytest.fixture(autouse=True)
def nothing_is_left_behind(
    api: Api, merchant: Caller, bank: FakeBank, ids: Mapping[str, str]
) -> Iterator[None]:
    """No event, no receipt, no refund, no claimed key, no call, and nothing asked of the bank."""
    before, asked = api.behind(), len(bank.requests)
    yield
    assert api.behind() == before
    assert len(bank.requests) == asked
    now = json_of(merchant.get(f"/payment_intents/{ids['intent']}"))
    assert now["status"] == "requires_confirmation"


@pytest.fixture
def ids(merchant: Caller) -> Mapping[str, str]:
    """What could be confirmed and given back, if the request were right."""
    intent = merchant.post("/payment_intents", right_body("create", {}))
    return {"intent": json_of(intent)["id"], "payment": merchant.captured()["payment_id"]}


def right_body(route: str, ids: Mapping[str, str]) -> dict[str, Any]:
    match route:
        case "create":
            return {"amount": 2599, "currency": "USD", "payment_method_id": "pm_fake_visa"}
        case "confirm":
            return {"payment_method_id": "pm_fake_visa"}
        case _:
            return {"payment_id": ids["payment"]}


def send(
    merchant: Caller,
    route: str,
    ids: Mapping[str, str],
    text: str | bytes,
    *,
    content_type: str = JSON,
    query: str = "",
) -> TestResponse:
    """The request, with this body, to one of the routes."""
    options: dict[str, Any] = {"data": text, "content_type": content_type}
    if route == "confirm":
        return merchant.patch(f"/payment_intents/{ids['intent']}/confirm{query}", **options)
    path = "/payment_intents" if route == "create" else "/refunds"
    return merchant.post(path + query, **options)


# --- money --------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", WITH_AMOUNT)
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
    merchant: Caller, ids: Mapping[str, str], route: str, raws: tuple[str, ...], code: str | None
) -> None:
    for raw in raws:
        text = with_raw(right_body(route, ids), "amount", raw)

        expected = unreadable("invalid_json") if code is None else wrong(code, "amount")
        assert refusal(send(merchant, route, ids, text)) == expected, raw


@pytest.mark.parametrize(
    "raw",
    ['"XXX"', '"US"', '"USDD"', '""', '" USD"', '"USD "', '"ＵＳＤ"', '"ußd"', "840", "true", "[]",
     '["USD"]', "{}", '"xau"', '"uſd"', "null"],
)  # fmt: skip
def test_a_currency_is_an_iso_4217_code(merchant: Caller, ids: Mapping[str, str], raw: str) -> None:
    text = with_raw(right_body("create", ids), "currency", raw)

    assert refusal(send(merchant, "create", ids, text)) == wrong("invalid_currency", "currency")


# --- texts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raws",
    [UNSPEAKABLE, NOT_TEXT, ('""', '" "', '"\\u3000"', f'"{"x" * 256}"')],
    ids=["unspeakable", "not text", "blank or long"],
)
def test_a_customers_id_is_a_text_of_1_to_255_characters(
    merchant: Caller, ids: Mapping[str, str], raws: tuple[str, ...]
) -> None:
    for raw in raws:
        if raw == "null":  # is as good as left out
            continue
        text = with_raw(right_body("create", ids), "customer_id", raw)

        assert refusal(send(merchant, "create", ids, text)) == wrong(
            "invalid_param", "customer_id"
        ), raw


@pytest.mark.parametrize("raw", UNSPEAKABLE)
@pytest.mark.parametrize("route", ROUTES)
def test_control_characters_and_lone_surrogates_are_refused_wherever_they_are(
    merchant: Caller, ids: Mapping[str, str], route: str, raw: str
) -> None:
    name = "payment_id" if route == "refund" else "payment_method_id"
    text = with_raw(right_body(route, ids), name, raw)
    named = with_raw(right_body(route, ids), "metadata", f'{{{raw}: "a"}}')

    assert refusal(send(merchant, route, ids, text)) == wrong("invalid_param", name)
    assert refusal(send(merchant, route, ids, named))[:3] == wrong("invalid_param", "")[:3]


@pytest.mark.parametrize(
    "raw",
    ["[]", "1", '"x"', '{"a": null}', '{"a": []}', '{"a": {"b": 1}}', '{"": 1}', '{"a": 1e300}',
     json.dumps({"k" * 41: 1}), json.dumps({"a": "x" * 501}), json.dumps({str(n): 1 for n in range(51)})],
    ids=lambda raw: raw[:24],
)  # fmt: skip
def test_metadata_is_a_flat_object_of_plain_values(
    merchant: Caller, ids: Mapping[str, str], raw: str
) -> None:
    text = with_raw(right_body("create", ids), "metadata", raw)

    assert refusal(send(merchant, "create", ids, text)) == wrong("invalid_param", "metadata")


@pytest.mark.parametrize(
    ("route", "field", "values"),
    [
        ("create", "capture_method", ("", "Manual", "automatic_async", 1, True, None, [])),
        ("refund", "reason", ("because", "", "DUPLICATE", 1, [], True)),
        ("create", "payment_method_id", (1, True, [], {}, "x" * 256)),
        ("confirm", "payment_method_id", (1, True, [], {}, "x" * 256)),
        ("refund", "payment_id", (1, True, [], {}, None, 1.5)),
    ],
)
def test_a_field_is_what_it_is_to_be(
    merchant: Caller, ids: Mapping[str, str], route: str, field: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        text = json.dumps(right_body(route, ids) | {field: value})

        assert refusal(send(merchant, route, ids, text)) == wrong("invalid_param", field), value


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", NOT_JSON)
def test_a_body_is_a_json_object_in_utf_8(
    merchant: Caller, ids: Mapping[str, str], route: str, name: str
) -> None:
    assert refusal(send(merchant, route, ids, NOT_JSON[name])) == unreadable("invalid_json")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("content_type", [FORM, "text/plain", "application/xml", ""])
def test_a_body_of_another_type_is_a_415(
    merchant: Caller, ids: Mapping[str, str], route: str, content_type: str
) -> None:
    text = json.dumps(right_body(route, ids))

    response = send(merchant, route, ids, text, content_type=content_type)

    assert refusal(response) == unreadable("unsupported_media_type", status=415)


@pytest.mark.parametrize("route", ROUTES)
def test_a_body_that_is_too_large_is_a_413(
    merchant: Caller, ids: Mapping[str, str], route: str
) -> None:
    text = json.dumps(right_body(route, ids) | {"x": "x" * 300_000})

    response = send(merchant, route, ids, text)

    assert refusal(response) == unreadable("request_too_large", status=413)


@pytest.mark.parametrize("body", ["{}", "", "  \r\n"])
@pytest.mark.parametrize(("route", "param"), [("create", "amount"), ("refund", "payment_id")])
def test_without_a_body_the_first_field_is_missing(
    merchant: Caller, ids: Mapping[str, str], route: str, param: str, body: str
) -> None:
    assert refusal(send(merchant, route, ids, body)) == wrong("missing_param", param)


@pytest.mark.parametrize("route", ROUTES)
def test_a_field_that_occurs_twice_is_refused(
    merchant: Caller, ids: Mapping[str, str], route: str
) -> None:
    text = json.dumps(right_body(route, ids))[:-1] + ', "x": 1, "x": 1}'

    assert refusal(send(merchant, route, ids, text)) == wrong("invalid_param", "x")


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", ["unknown", "Amount", "id", "__proto__", "ü", "force", "expand"])
def test_an_unknown_field_is_refused_by_name(
    merchant: Caller, ids: Mapping[str, str], route: str, name: str
) -> None:
    text = json.dumps(right_body(route, ids) | {name: "x"})

    assert refusal(send(merchant, route, ids, text)) == wrong("unknown_param", name)


# --- queries ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "param"),
    [
        ("force=", "invalid_param", "force"),
        ("force=success", "invalid_param", "force"),
        ("force=FAILURE", "invalid_param", "force"),
        ("force[]=failure", "invalid_param", "force"),
        ("force=failure&force=failure", "invalid_param", "force"),
        ("force=failure%00", "invalid_param", "force"),
        ("Force=failure", "unknown_param", "Force"),
        ("force=failure&x=1", "unknown_param", "x"),
        ("force=%ff", "invalid_param", None),
    ],
)
def test_a_failure_is_forced_by_its_name_only(
    merchant: Caller, ids: Mapping[str, str], query: str, code: str, param: str | None
) -> None:
    response = send(merchant, "confirm", ids, "{}", query=f"?{query}")

    assert refusal(response) == wrong(code, param)


def test_where_no_parameters_are_taken_none_are_given(
    merchant: Caller, ids: Mapping[str, str]
) -> None:
    for route in ("create", "refund"):
        text = json.dumps(right_body(route, ids))
        response = send(merchant, route, ids, text, query="?force=failure")
        assert refusal(response) == wrong("unknown_param", "force")
    for path in (f"/payment_intents/{ids['intent']}", f"/payments/{ids['intent']}"):
        assert refusal(merchant.get(f"{path}?force=failure")) == wrong("unknown_param", "force")


# --- ids ----------------------------------------------------------------------------------------


def test_an_id_that_names_nothing_is_the_same_404(merchant: Caller, ids: Mapping[str, str]) -> None:
    intent_id, payment_id = ids["intent"], ids["payment"]
    suffix = intent_id.removeprefix("pi_")
    for text in (
        "pi_", suffix, f"pay_{suffix}", intent_id.upper(), intent_id[:-1], intent_id + "0", "x" * 5000,
        "pi_" + "u" * 26, "pi_" + "8" + "0" * 25, "pi_%00", "%F0%9F%92%B3", "'; --", payment_id,
    ):  # fmt: skip
        missing = (404, INVALID, "payment_intent_not_found", None)
        assert refusal(merchant.get(f"/payment_intents/{text}")) == missing, text
        assert refusal(merchant.get(f"/payments/{text}")) == missing, text
        assert refusal(merchant.patch(f"/payment_intents/{text}/confirm")) == missing, text


@pytest.mark.parametrize("wrong_id", ["", "pay_", "ch_1", "PAY_1", "pi_1", "x" * 5000, "'; --"])
def test_a_payment_that_is_not_there_is_a_404_that_names_the_field(
    merchant: Caller, wrong_id: str
) -> None:
    response = merchant.post("/refunds", {"payment_id": wrong_id})

    assert refusal(response) == (404, INVALID, "payment_not_found", "payment_id")


@pytest.mark.parametrize("name", ["", "pm_", "pm_nothing", "tok_apple_", "PM_FAKE_VISA", "'; --"])
@pytest.mark.parametrize("route", ["create", "confirm"])
def test_a_method_that_is_not_there_is_a_404_that_names_the_field(
    merchant: Caller, ids: Mapping[str, str], route: str, name: str
) -> None:
    text = json.dumps(right_body(route, ids) | {"payment_method_id": name})

    response = send(merchant, route, ids, text)

    what = ("payment_method_not_found", "payment_method_id")
    assert refusal(response) == (404, INVALID, *what)
