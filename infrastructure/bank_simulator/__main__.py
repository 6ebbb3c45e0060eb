"""`python -m infrastructure.bank_simulator`: the bank without our command line."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from infrastructure.bank_simulator.profiles import PROFILES
from infrastructure.bank_simulator.server import BankOptions, WrongOptions, run

DEFAULTS = BankOptions()
DEFAULT_PORT = 8787


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    try:
        given = parser.parse_args(arguments)
        options = BankOptions(
            failure_rate=given.failure_rate,
            min_latency_ms=given.min_latency_ms,
            max_latency_ms=given.max_latency_ms,
            auth_expiry_hours=given.auth_expiry_hours,
            profile=given.profile,
            happy_balance=given.balance,
            gives_up_seconds=given.gives_up_seconds,
            settle_seconds=given.settle_seconds,
            public_url=given.public_url,
            seed=given.seed,
        )
        run(host=given.host, port=given.port, database=given.database, options=options)
    except WrongOptions as error:
        sys.stderr.write(f"bank: {error}\n")
        sys.exit(2)


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line; the usage is what `--help` is for."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bank: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _OneLineParser(
        prog="python -m infrastructure.bank_simulator",
        description="The partner bank, simulated. Environment: FAILURE_RATE, MIN_LATENCY_MS, "
        "MAX_LATENCY_MS, AUTH_EXPIRY_HOURS and SETTLE_SECONDS stand in for options that are not given.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen at")
    add("--port", type=int, default=DEFAULT_PORT, help="0 takes a free one")
    add("--database", type=Path, required=True, help="SQLite file, made if it is not there")
    for option, kind, default, meaning in (
        ("--failure-rate", float, DEFAULTS.failure_rate, "share of calls that answer 500"),
        ("--min-latency-ms", int, DEFAULTS.min_latency_ms, "lowest latency"),
        ("--max-latency-ms", int, DEFAULTS.max_latency_ms, "highest latency"),
        ("--auth-expiry-hours", float, DEFAULTS.auth_expiry_hours, "life of an authorization"),
        ("--settle-seconds", float, DEFAULTS.settle_seconds, "until a bank transfer is settled"),
    ):
        add(option, type=kind, default=_from_environment(option, default), help=meaning)
    add("--profile", choices=tuple(PROFILES), default=DEFAULTS.profile, help="what the bank offers")
    add("--balance", type=int, help="cents for the happy-path card, if more than it has")
    add("--gives-up-seconds", type=float, default=DEFAULTS.gives_up_seconds, help="for one call")
    add("--public-url", help="where browsers find the pages for shoppers, if not where it listens")
    add("--seed", type=int, help="makes latency and failures repeatable")
    return parser


def _from_environment(option: str, default: float) -> str:
    """Text, so that argparse checks it like an argument."""
    return os.environ.get(option.removeprefix("--").replace("-", "_").upper()) or str(default)


if __name__ == "__main__":
    main()
