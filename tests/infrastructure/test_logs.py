"""Nothing secret gets into the log, even from those who put it where it does not belong."""

import pytest

from infrastructure.logs import strike_out_secrets


@pytest.mark.parametrize(
    "text",
    [
        "/v1/orders/sk_live_abcdefghijklmnopqrstuvwxyz012345",
        "Bearer sk_test_abcdefghijklmnopqrstuvwxyz012345",
        "the secret is whsec_AbCdEf+/abcdefghijklmnopqrst0123456",
        "pk_live_abcdefghijklmnopqrstuvwxyz012345",
    ],
)
def test_no_whole_key_is_logged(text: str) -> None:
    event = strike_out_secrets(None, "info", {"path": text})

    assert "abcd" not in event["path"]
    assert "_" in event["path"]


@pytest.mark.parametrize(
    "text", ["4111111111111111", "x4111 1111 1111 1111y", "_4111-1111-1111-1111"]
)
def test_no_card_number_is_logged(text: str) -> None:
    event = strike_out_secrets(None, "info", {"path": text})

    assert "1111" not in event["path"]
