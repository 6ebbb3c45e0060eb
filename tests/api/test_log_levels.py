"""The log's levels follow the status: an error from 500, a warning from 400, else information."""

from structlog.testing import capture_logs

from domain.bank import Rejected
from tests.api.an_api import Api, Caller
from tests.fakes import FakeBank


def test_a_malformed_request_to_the_bank_is_an_error_in_the_log(
    merchant: Caller, bank: FakeBank
) -> None:
    bank.will_answer(Rejected(reason="invalid_amount"))

    with capture_logs() as lines:
        response = merchant.authorize()

    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["status_code"], line["log_level"]) == (502, "error")
    assert line["request_id"] == response.headers["Request-Id"]


def test_a_decline_is_a_warning_and_a_payment_is_information(api: Api, merchant: Caller) -> None:
    with capture_logs() as lines:
        merchant.declined()
        merchant.authorized()
        api.nobody().get("/v1/health")

    requests = [line for line in lines if line["event"] == "request"]
    levels = [(line["status_code"], line["log_level"]) for line in requests]
    assert levels == [(402, "warning"), (200, "info"), (201, "info"), (200, "info")]
