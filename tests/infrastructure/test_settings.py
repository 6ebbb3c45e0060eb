"""A wrong setting is one line that names it."""

import pytest

from infrastructure.settings import SettingsError, read_settings


@pytest.mark.parametrize(
    "url",
    [
        "http://[::",
        "http://127.0.0.1:99999",
        "http://h/x?y=z",
        "http://h/#f",
        "ftp://h",
        "http://",
        "http://h h",
        "h:80",
    ],
)
@pytest.mark.parametrize("name", ["BANK_URL", "PUBLIC_URL"])
def test_a_url_that_is_none_is_refused(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match=name):
        read_settings({name: url})


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8787", "https://bank.example/base", "http://[::1]:80"]
)
def test_a_url_is_taken(url: str) -> None:
    assert read_settings({"BANK_URL": url}).bank_url == url
