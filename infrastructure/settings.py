"""Settings: everything that differs between one installation and another. The only reader of the
environment, and of a `.env` file, which the environment overrides."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values

PROJECT: Final = Path(__file__).resolve().parent.parent
DEFAULT_BANK_URL: Final = "http://127.0.0.1:8787"

# What was on its way to the bank when we gave it up begins there this much later, at most.
QUIET_MARGIN_SECONDS: Final = 5.0
LEASE_MARGIN_SECONDS: Final = 3.0
# A worker first asks whether the bank is well, twice, and that is answered at once or not at all.
HEALTH_CHECKS_SECONDS: Final = 2.0

Value = TypeVar("Value")


class SettingsError(Exception):
    """A setting has a wrong value, or a needed one is missing. One line that says which and why."""


class Environment(StrEnum):
    """How strict to be."""

    DEMO = "demo"
    PRODUCTION = "production"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings, checked. None: not set. Seconds and milliseconds as named."""

    database_url: str | None
    bank_url: str
    bank_profile: str
    bank_timeout_seconds: float
    bank_gives_up_seconds: float
    host: str
    port: int
    api_key: str | None
    async_delay_ms: int
    request_deadline_seconds: float
    reconcile_every_hours: float
    invoice_retry_days: tuple[int, ...]
    after_invoice_retries: str
    vault_keys: tuple[str, ...]
    checkpoint_key: str | None
    checkpoint_origin: str
    checkpoint_every_seconds: float
    checkpoint_push: tuple[str, ...]
    checkpoint_witnesses: tuple[str, ...]
    rate_limit_per_minute: int
    rate_limit_intents_per_minute: int
    rate_limit_webhooks_per_minute: int
    rate_limit_ip_per_minute: int
    trusted_proxies: int
    public_url: str
    cors_origins: tuple[str, ...]
    redis_url: str | None
    log_level: str
    log_format: str
    environment: Environment
    data_dir: Path
    fault_point: tuple[str, int] | None

    @property
    def is_production(self) -> bool:
        """Whether demo secrets are refused."""
        return self.environment is Environment.PRODUCTION

    @property
    def quiet_seconds(self) -> float:
        """After silence: until the bank has certainly ended the call that it did not answer."""
        return self.bank_gives_up_seconds + QUIET_MARGIN_SECONDS

    @property
    def worker_call_seconds(self) -> float:
        """How long a worker may be at one call: a question about its key, and the call itself."""
        return 2 * self.bank_timeout_seconds + HEALTH_CHECKS_SECONDS

    @property
    def lease_seconds(self) -> float:
        """Longer than whoever is at a call may send it, and the bank may then be working on it: so
        that nobody takes up what a dead process sent while it still runs."""
        longest = max(self.request_deadline_seconds, self.worker_call_seconds)
        return longest + self.bank_gives_up_seconds + LEASE_MARGIN_SECONDS


def read_settings(
    environ: Mapping[str, str] | None = None, *, given: Mapping[str, str] | None = None
) -> Settings:
    """The settings from the environment (`.env` beneath it), with `given` above both.

    Raises SettingsError with one line for the first that is wrong.
    """
    if environ is None:
        file = {k: v for k, v in dotenv_values(PROJECT / ".env").items() if v is not None}
        environ = {**file, **os.environ}
    reader = _Reader({**environ, **(given or {})})
    settings = _read(reader)
    if settings.is_production:
        _refuse_demo(settings, reader)
    return settings


class _Reader:
    """Takes one variable after the other, and says which is wrong."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        """The value; an empty one is as good as none."""
        return self._environ.get(name, "").strip() or None

    def parsed(self, name: str, default: Value, parse: Callable[[str], Value], wants: str) -> Value:
        """The value as `parse` reads it. Raises SettingsError where it cannot."""
        text = self.text(name)
        if text is None:
            return default
        try:
            return parse(text)
        except (ValueError, KeyError) as error:
            raise SettingsError(f"{name} must be {wants}, not {text!r}") from error

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return self.parsed(
            name, default, _within(int, low, high), f"a whole number from {low} to {high}"
        )

    def seconds(self, name: str, default: float, low: float, high: float) -> float:
        """A number of seconds from `low` to `high`."""
        return self.parsed(
            name, default, _within(float, low, high), f"a number from {low} to {high}"
        )

    def hours(self, name: str, default: float, low: float, high: float) -> float:
        """A number of hours from `low` to `high`."""
        return self.parsed(
            name, default, _within(float, low, high), f"a number of hours from {low:g} to {high:g}"
        )

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        """One of `choices`."""
        return self.parsed(
            name,
            default,
            lambda text: {c.lower(): c for c in choices}[text.lower()],
            " or ".join(choices),
        )

    def url(self, name: str, schemes: tuple[str, ...]) -> str | None:
        """A URL of one of the schemes."""
        text = self.text(name)
        if text is not None and not re.match(rf"({'|'.join(schemes)})://\S+\Z", text):
            raise SettingsError(f"{name} must be a URL that starts with {schemes[0]}://")
        return text

    def address(self, name: str) -> str | None:
        """An http or https URL of a host, and perhaps a port and a path, and nothing else."""
        text = self.url(name, ("http", "https"))
        try:
            parts = urlsplit(text or "http://none")
            sound = bool(parts.hostname) and parts.port != 0 and not (parts.query or parts.fragment)
        except ValueError:
            sound = False
        if not sound:
            raise SettingsError(f"{name} must be a URL such as http://host:port")
        return text


RATE_LIMITS: Final = {
    "RATE_LIMIT_PER_MINUTE": 1000,
    "RATE_LIMIT_INTENTS_PER_MINUTE": 100,
    "RATE_LIMIT_WEBHOOKS_PER_MINUTE": 10_000,
    "RATE_LIMIT_IP_PER_MINUTE": 60,
}
MOST_PROXIES: Final = 10


def _read(reader: _Reader) -> Settings:
    bank_url = reader.address("BANK_URL")
    port = reader.integer("PORT", 8080, 1, 65535)
    host = reader.text("HOST") or "127.0.0.1"
    environment = Environment(reader.choice("ENVIRONMENT", "demo", ("demo", "production")))
    public_url = (reader.address("PUBLIC_URL") or f"http://{host}:{port}").rstrip("/")
    return Settings(
        database_url=reader.url("DATABASE_URL", ("postgresql", "postgres")),
        bank_url=bank_url or DEFAULT_BANK_URL,
        bank_profile=reader.choice(
            "BANK_PROFILE", "ficmart" if bank_url else "extended", ("ficmart", "extended")
        ),
        bank_timeout_seconds=reader.seconds("BANK_TIMEOUT_SECONDS", 5.0, 0.1, 14.0),
        bank_gives_up_seconds=reader.seconds("BANK_GIVES_UP_SECONDS", 15.0, 0.5, 300.0),
        host=host,
        port=port,
        api_key=_header_text(reader, "API_KEY"),
        async_delay_ms=reader.integer("ASYNC_DELAY", 2000, 0, 3_600_000),
        request_deadline_seconds=reader.seconds("REQUEST_DEADLINE_SECONDS", 10.0, 1.0, 25.0),
        reconcile_every_hours=reader.hours("RECONCILE_EVERY_HOURS", 24.0, 0.0, 8760.0),
        invoice_retry_days=_invoice_retry_days(reader),
        after_invoice_retries=_after_invoice_retries(reader),
        vault_keys=_list(reader, "VAULT_KEYS"),
        **_of_checkpoints(reader, public_url),
        **_rate_limits(reader),
        public_url=public_url,
        cors_origins=_list(reader, "CORS_ORIGINS") or _every_origin(environment),
        redis_url=reader.url("REDIS_URL", ("redis", "rediss", "unix")),
        log_level=reader.choice("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR")),
        log_format=reader.choice("LOG_FORMAT", "json", ("json", "text")),
        environment=environment,
        data_dir=Path(reader.text("DATA_DIR") or PROJECT / ".data").absolute(),
        fault_point=_fault_point_of(reader),
    )


def _rate_limits(reader: _Reader) -> dict[str, Any]:
    """How much is let through, and how many proxies of ours are in front of the address that it is
    counted by."""
    limits = {
        name.lower(): reader.integer(name, default, 0, 10**9)
        for name, default in RATE_LIMITS.items()
    }
    return {**limits, "trusted_proxies": reader.integer("TRUSTED_PROXIES", 0, 0, MOST_PROXIES)}


def _of_checkpoints(reader: _Reader, public_url: str) -> dict[str, Any]:
    """What has to do with the signed heads of the log."""
    return {
        "checkpoint_key": reader.text("CHECKPOINT_KEY"),
        "checkpoint_origin": _origin(reader) or public_url.partition("://")[2],
        "checkpoint_every_seconds": reader.seconds("CHECKPOINT_EVERY_SECONDS", 5.0, 0.0, 86_400.0),
        "checkpoint_push": _places(reader),
        "checkpoint_witnesses": _list(reader, "CHECKPOINT_WITNESSES"),
    }


def _fault_point_of(reader: _Reader) -> tuple[str, int] | None:
    return reader.parsed("FAULT_POINT", None, _fault_point, "a point, a colon and a number")


def _refuse_demo(settings: Settings, reader: _Reader) -> None:
    """Production takes nothing that was made up for it."""
    for name in ("DATABASE_URL", "BANK_URL", "VAULT_KEYS", "CHECKPOINT_KEY"):
        if reader.text(name) is None:
            raise SettingsError(f"{name} is required in production")
    if settings.api_key is not None:
        raise SettingsError("API_KEY is for demos; make a key with `counterfoil keys create`")
    if settings.fault_point is not None:
        raise SettingsError("FAULT_POINT is for tests; it kills the process")


def _list(reader: _Reader, name: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in (reader.text(name) or "").split(",") if part.strip())


def _origin(reader: _Reader) -> str | None:
    """What the log is called in its checkpoints, for ever."""
    origin = reader.text("CHECKPOINT_ORIGIN")
    if origin is not None and not re.fullmatch(r"[\x21-\x2a\x2c-\x7e]{1,200}", origin):
        raise SettingsError(
            "CHECKPOINT_ORIGIN must be a name such as ledger.example.com/log, without spaces or plus"
        )
    return origin


def _places(reader: _Reader) -> tuple[str, ...]:
    """Where checkpoints are pushed to."""
    places = _list(reader, "CHECKPOINT_PUSH")
    for place in places:
        if not re.fullmatch(r"file:(//)?/[^\s?#]+|https?://[^\s/]\S*", place):
            raise SettingsError(
                "CHECKPOINT_PUSH must be places by commas, each file:/path or an http or https URL"
            )
    return places


def _fault_point(text: str) -> tuple[str, int] | None:
    """Where the process is to die, and at which pass; `name:1` is the first."""
    name, _, number = text.partition(":")
    if not name or int(number) < 1:
        raise ValueError(text)
    return name, int(number)


def _every_origin(environment: Environment) -> tuple[str, ...]:
    """In a demo, and nowhere else."""
    return ("*",) if environment is Environment.DEMO else ()


def _invoice_retry_days(reader: _Reader) -> tuple[int, ...]:
    wants = "up to 10 rising numbers of days, as 1,3,5,7"
    return reader.parsed("INVOICE_RETRY_DAYS", (1, 3, 5, 7), _days, wants)


def _after_invoice_retries(reader: _Reader) -> str:
    return reader.choice("AFTER_INVOICE_RETRIES", "cancel", ("cancel", "past_due"))


def _days(text: str) -> tuple[int, ...]:
    """Days after the first time, each later than the one before, within a year."""
    days = tuple(int(part) for part in text.split(","))
    if len(days) > 10 or list(days) != sorted(set(days)) or not 1 <= days[0] <= days[-1] <= 365:
        raise ValueError(text)
    return days


def _header_text(reader: _Reader, name: str) -> str | None:
    """Text that can be sent in a header."""
    text = reader.text(name)
    if text is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", text):
        raise SettingsError(f"{name} must be 1 to 255 printable ASCII characters without spaces")
    return text


def _within(kind: Callable[[str], Value], low: object, high: object) -> Callable[[str], Value]:
    def parse(text: str) -> Value:
        value = kind(text) if re.fullmatch(r"[0-9.]+", text, re.ASCII) else None
        if value is None or not low <= value <= high:  # type: ignore[operator]
            raise ValueError(text)
        return value

    return parse
