"""Customers: what may be said of them, and how their list is paged."""

from typing import Any, Final

import pytest

from api.payments.schemas import CustomerOut
from tests.api.an_api import Caller, error_of, json_of, refusal

CUSTOMERS: Final = "/v1/customers"
MOST_TEXT: Final = "x" * 500
REFUSED: Final[list[tuple[dict[str, Any], str, str]]] = [
    ({"email": "nobody"}, "invalid_param", "email"),
    ({"email": "a@b"}, "invalid_param", "email"),
    ({"email": "a@@example.com"}, "invalid_param", "email"),
    ({"email": "a b@example.com"}, "invalid_param", "email"),
    ({"email": "Ada <a@example.com>"}, "invalid_param", "email"),
    ({"email": "a" * 500 + "@example.com"}, "invalid_param", "email"),
    ({"email": 5}, "invalid_param", "email"),
    ({"name": MOST_TEXT + "x"}, "invalid_param", "name"),
    ({"name": ["Ada"]}, "invalid_param", "name"),
    ({"phone": "1\x002"}, "invalid_param", "phone"),
    ({"nickname": "Ada"}, "unknown_param", "nickname"),
    ({"id": "cus_1"}, "unknown_param", "id"),
    ({"metadata": {str(n): n for n in range(51)}}, "invalid_param", "metadata"),
    ({"metadata": {"k" * 41: "v"}}, "invalid_param", "metadata"),
    ({"metadata": {"": "v"}}, "invalid_param", "metadata"),
    ({"metadata": {"k": "v" * 501}}, "invalid_param", "metadata"),
    ({"metadata": {"k": 2**53}}, "invalid_param", "metadata"),
    ({"metadata": {"k": {"nested": "v"}}}, "invalid_param", "metadata"),
    ({"metadata": ["k"]}, "invalid_param", "metadata"),
]


def created(merchant: Caller, **fields: Any) -> dict[str, Any]:
    response = merchant.post(CUSTOMERS, fields)
    assert response.status_code == 201, response.text
    CustomerOut.model_validate_json(response.data)
    customer: dict[str, Any] = json_of(response)
    return customer


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"name": 5}, "name must be a string."),
        ({"address": "1 Main"}, "address must be an object."),
        ({"expand": "x"}, "expand must be a list."),
    ],
)
def test_what_is_of_another_type_is_told_in_plain_words(
    merchant: Caller, body: dict[str, Any], message: str
) -> None:
    assert error_of(merchant.post(CUSTOMERS, body), 400)["message"] == message


def test_a_form_may_have_numbers_for_metadatas_keys(merchant: Caller) -> None:
    form = {"metadata[0]": "a", "metadata[1]": "b"}

    made = json_of(merchant.post(CUSTOMERS, data=form))
    changed = json_of(merchant.post(f"{CUSTOMERS}/{made['id']}", data={"metadata[0]": ""}))

    assert made["metadata"] == {"0": "a", "1": "b"}
    assert changed["metadata"] == {"1": "b"}


@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.parametrize(("body", "code", "param"), REFUSED)
def test_what_is_wrong_is_named_and_nothing_is_changed(
    merchant: Caller, method: str, body: dict[str, Any], code: str, param: str
) -> None:
    before = created(merchant, name="Ada")
    path = f"{CUSTOMERS}/{before['id']}"

    response = merchant.request(method, path, json=body)

    assert refusal(response) == (400, "invalid_request_error", code, param)
    assert error_of(merchant.post(CUSTOMERS, body), 400)["param"] == param
    assert json_of(merchant.get(path)) == before


def test_all_that_is_allowed_is_kept_as_it_was_said(merchant: Caller) -> None:
    said = {
        "email": "ada+1@sub.example.co.uk",
        "name": MOST_TEXT,
        "phone": "+44 7700 900123",
        "metadata": {"k" * 40: "v" * 500, "n": 2**53 - 1, "b": True, "f": 1.5}
        | {f"k{number}": "" if number == 0 else "v" for number in range(46)},
    }

    made = created(merchant, **said)

    assert {name: made[name] for name in ("email", "name", "phone")} == {
        name: said[name] for name in ("email", "name", "phone")
    }
    assert len(made["metadata"]) == 49  # an empty text is none
    assert json_of(merchant.get(f"{CUSTOMERS}/{made['id']}")) == made


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_what_is_given_is_changed_and_what_is_empty_unset(merchant: Caller, method: str) -> None:
    made = created(
        merchant, email="a@example.com", name="Ada", phone="1", metadata={"a": "1", "b": "2"}
    )
    change = {"email": "", "phone": None, "metadata": {"a": None, "c": 3}}

    changed = json_of(merchant.request(method, f"{CUSTOMERS}/{made['id']}", json=change))

    assert (changed["email"], changed["phone"], changed["name"]) == (None, None, "Ada")
    assert changed["metadata"] == {"b": "2", "c": 3}
    assert changed["created"] == made["created"]
    assert changed["updated"] >= made["updated"]


def test_metadata_grows_to_its_limit_and_not_beyond(merchant: Caller) -> None:
    made = created(merchant, metadata={f"a{number}": "v" for number in range(30)})
    path = f"{CUSTOMERS}/{made['id']}"
    more = {f"b{number}": "v" for number in range(21)}

    refused = merchant.patch(path, {"metadata": more})
    instead = merchant.patch(path, {"metadata": {**more, "a0": None}})

    assert refusal(refused) == (400, "invalid_request_error", "invalid_param", "metadata")
    assert len(json_of(instead)["metadata"]) == 50


@pytest.mark.parametrize(
    "named", ["cus_x", "cus_00000000000000000000000000", "pay_x", "", "x" * 300]
)
@pytest.mark.parametrize("where", ["starting_after", "ending_before"])
@pytest.mark.parametrize(
    "path",
    [CUSTOMERS, "/v1/receipts", "/v1/refunds", "/v1/charges", "/v1/payment_intents",
     "/v1/payment_methods", "/v1/events"],
)  # fmt: skip
def test_a_cursor_that_is_none_is_a_404_that_names_it(
    merchant: Caller, path: str, where: str, named: str
) -> None:
    response = merchant.get(path, query_string={where: named})

    assert error_of(response, 404)["param"] == where


def test_a_cursor_of_another_kind_of_thing_is_none(merchant: Caller) -> None:
    customer = created(merchant)["id"]
    renamed = customer.replace("cus_", "pm_")

    response = merchant.get("/v1/payment_methods", query_string={"starting_after": renamed})

    assert error_of(response, 404)["param"] == "starting_after"


def test_a_list_has_twenty_on_a_page_unless_more_or_fewer_are_asked_for(merchant: Caller) -> None:
    ids = [created(merchant)["id"] for _ in range(22)]

    page = json_of(merchant.get(CUSTOMERS))
    rest = json_of(merchant.get(f"{CUSTOMERS}?starting_after={page['next_cursor']}"))
    back = json_of(merchant.get(f"{CUSTOMERS}?ending_before={rest['data'][0]['id']}"))

    assert [each["id"] for each in page["data"] + rest["data"]] == ids[::-1]
    assert (page["has_more"], rest["has_more"], rest["next_cursor"]) == (True, False, None)
    assert back["data"] == page["data"]
    assert (page["object"], page["url"]) == ("list", CUSTOMERS)
