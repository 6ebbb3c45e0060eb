"""Logs: one JSON object a line on standard error, or text for people.

Nothing secret gets here: callers name the fields they log, none of them a body, and cards do not
print. What looks like a card number all the same is struck out as a second line of defence.
"""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final

import structlog

from domain.cards import passes_luhn

_DIGITS: Final = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_KEY: Final = re.compile(r"\b((?:(?:sk|pk)_(?:test|live)_|whsec_)\w{0,2})[\w+/]+")
STRUCK_OUT: Final = "[card number]"


def configure_logs(level: str, log_format: str, *, for_good: bool = True) -> None:
    """Sets up logging for the process. `for_good`: who logs once keeps to it, which is quicker."""
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
            structlog.processors.format_exc_info,
            strike_out_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=for_good,
    )


def strike_out_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Replaces every text that passes for a card number, and all but the start of API keys and of the
    secrets of webhooks."""
    for name, value in event.items():
        if isinstance(value, str) and len(value) >= 13:
            event[name] = _KEY.sub(r"\1…", _DIGITS.sub(_strike, value))
    return event


def _strike(match: re.Match[str]) -> str:
    digits = re.sub(r"\D", "", match.group())
    return STRUCK_OUT if passes_luhn(digits) else match.group()
