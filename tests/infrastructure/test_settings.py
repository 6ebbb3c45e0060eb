"""A wrong setting is one line that names it; times that hang together are kept together."""

import pytest

from domain.ledger import LEASE_SECONDS
from infrastructure.bank_calls import QUIET_SECONDS
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


def test_the_times_for_the_partner_are_those_that_the_code_starts_from() -> None:
    settings = read_settings({})

    assert settings.bank_gives_up_seconds == 15
    assert settings.worker_call_seconds == 12
    assert (settings.quiet_seconds, settings.lease_seconds) == (QUIET_SECONDS, LEASE_SECONDS)


@pytest.mark.parametrize(
    ("deadline", "timeout", "gives_up"),
    [("10", "5", "15"), ("25", "5", "15"), ("1", "14", "15"), ("3", "1", "2"), ("10", "5", "60")],
)
def test_a_lease_and_a_quiet_time_outlast_what_the_bank_may_still_be_at(
    deadline: str, timeout: str, gives_up: str
) -> None:
    environ = {"REQUEST_DEADLINE_SECONDS": deadline, "BANK_TIMEOUT_SECONDS": timeout}

    settings = read_settings({**environ, "BANK_GIVES_UP_SECONDS": gives_up})

    last_sent = max(settings.request_deadline_seconds, settings.worker_call_seconds)
    assert settings.lease_seconds > last_sent + settings.bank_gives_up_seconds
    assert settings.quiet_seconds > settings.bank_gives_up_seconds


@pytest.mark.parametrize(
    ("text", "hours"), [("", 24.0), ("0", 0.0), ("0.5", 0.5), ("8760", 8760.0)]
)
def test_hours_are_taken(text: str, hours: float) -> None:
    assert read_settings({"RECONCILE_EVERY_HOURS": text}).reconcile_every_hours == hours


@pytest.mark.parametrize("text", ["-1", "8761", "daily", "nan", "1e3"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="RECONCILE_EVERY_HOURS"):
        read_settings({"RECONCILE_EVERY_HOURS": text})


def test_a_fault_point_is_a_name_and_which_time() -> None:
    assert read_settings({"FAULT_POINT": "append.committed:2"}).fault_point == (
        "append.committed",
        2,
    )
    assert read_settings({}).fault_point is None


@pytest.mark.parametrize("text", ["append.committed", "append.committed:", "a:0", "a:b", ":1"])
def test_a_fault_point_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="FAULT_POINT"):
        read_settings({"FAULT_POINT": text})


def test_production_does_not_kill_itself() -> None:
    production = {
        "ENVIRONMENT": "production",
        "DATABASE_URL": "postgresql://db/ledger",
        "BANK_URL": "https://bank.example",
        "VAULT_KEYS": "a-key",
        "CHECKPOINT_KEY": "another",
    }
    assert read_settings(production).is_production

    with pytest.raises(SettingsError, match="FAULT_POINT is for tests"):
        read_settings(production | {"FAULT_POINT": "append.committed:1"})
