"""Switches for what goes wrong at the bank, thrown at run time through `/__faults`.

`GET /__faults` shows everything; `POST /__faults` merges an object into it and answers the whole.
An unknown name or a wrong value is a 400 that names it, and nothing is changed.

Lasting switches, with what they are by default::

    {"overlap": true,            two calls of one key that overlap are both executed;
                                 false: the second waits for the first, and is a replay
     "forget": 0.02,             of the calls whose caller hung up before the work: this share is
                                 done without remembering the key (0 never, 1 always)
     "abandoned": "stopped",     ...and the others are not done, or ("finished") done and remembered
     "store_delay_ms": 0,        time between the work and the remembering of its key; a caller
                                 that hangs up in between is forgotten, unless "forget" is 0
     "database_down": false,     POSTs 400 internal_error, GETs 404, /health 503, no key is known
     "lock_timeout": false,      POSTs 400 invalid_card or ..._not_found for good ids
     "failure_rate": 0.05, "min_latency_ms": 100, "max_latency_ms": 2000,
     "auth_expiry_seconds": 604800, "clock_offset_seconds": 0}

Counted faults strike the next `count` POSTs and are used up (state null: not set). Each is a
number, or an object that may narrow it down::

    {"fail_before": 2}
    {"drop_after": {"count": 1, "operation": "captures"}}
    {"hang": {"count": 1, "milliseconds": 3000, "operation": "refunds"}}
    {"forget_after": null}

    fail_before     500, nothing done              drop_before    hung up, nothing done
    fail_after      done and remembered, but 500   drop_after     done and remembered, hung up
    forget_after    done, not remembered, hung up  garble         done and remembered, half a body
    hang            waits before the work          hang_after     waits before the answer
    mismatch        200 with another amount and id wrong_currency 200 in another currency

Replays are never struck. `fail_after`, `drop_after`, `forget_after`, `hang_after`, `garble`,
`mismatch` and `wrong_currency` wait for a call that does something; declines do not use them up.
`{"reset": true}` puts everything back to how the bank was started, before the rest of the object.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

OPERATIONS = (
    "authorizations",
    "captures",
    "voids",
    "refunds",
    "transfers",
    "dispute_evidence",
    "dispute_acceptances",
)
LONGEST_PAUSE_MS = 600_000

CountedName = Literal[
    "fail_before",
    "fail_after",
    "drop_before",
    "drop_after",
    "forget_after",
    "hang",
    "hang_after",
    "garble",
    "mismatch",
    "wrong_currency",
]
COUNTED: tuple[CountedName, ...] = get_args(CountedName)
WITH_DURATION = ("hang", "hang_after")


class WrongSwitch(Exception):
    """A name or a value that `/__faults` does not know; the message says which."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Switches:
    """What lasts until it is switched back; the defaults are the partner's manners."""

    overlap: bool = True
    forget: float = 0.02
    abandoned: str = "stopped"
    store_delay_ms: int = 0
    database_down: bool = False
    lock_timeout: bool = False
    failure_rate: float = 0.05
    min_latency_ms: int = 100
    max_latency_ms: int = 2_000
    auth_expiry_seconds: float = 7 * 24 * 3600
    clock_offset_seconds: float = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """How many more calls a fault strikes, and which; `milliseconds` only for the hangs."""

    count: int
    operation: str | None = None
    milliseconds: int | None = None

    def strikes(self, operation: str) -> bool:
        return self.operation in {None, operation}


class Faults:
    def __init__(self, switches: Switches) -> None:
        self._started_with = switches
        self.switches = switches
        self._counted: dict[CountedName, Counted] = {}

    def take(self, name: CountedName, operation: str) -> Counted | None:
        """The fault, if it strikes this call; one strike is used up."""
        counted = self._counted.get(name)
        if counted is None or not counted.strikes(operation):
            return None
        if counted.count > 1:
            self._counted[name] = replace(counted, count=counted.count - 1)
        else:
            del self._counted[name]
        return counted

    def merge(self, changes: Mapping[str, object]) -> None:
        """Raises `WrongSwitch` and changes nothing if any part of `changes` is wrong."""
        reset = _truth("reset", changes.get("reset", False))
        switches = self._started_with if reset else self.switches
        counted = {} if reset else dict(self._counted)
        for name, value in changes.items():
            if name in SWITCHES:
                switches = replace(switches, **{name: SWITCHES[name](name, value)})
            elif name in COUNTED:
                _put(counted, name, value)
            elif name != "reset":
                raise WrongSwitch(f"{name}: there is no such switch")
        if switches.min_latency_ms > switches.max_latency_ms:
            raise WrongSwitch("min_latency_ms: must not be above max_latency_ms")
        self.switches, self._counted = switches, counted

    def state(self) -> dict[str, object]:
        """Every switch and every counted fault, as `POST /__faults` takes them."""
        counted = {name: self._counted.get(name) for name in COUNTED}
        return asdict(self.switches) | {
            name: None if fault is None else _shown(name, fault) for name, fault in counted.items()
        }


def _shown(name: CountedName, fault: Counted) -> dict[str, object]:
    shown = asdict(fault)
    if name not in WITH_DURATION:
        del shown["milliseconds"]
    return shown


def _put(counted: dict[CountedName, Counted], name: CountedName, value: object) -> None:
    fault = _counted_fault(name, value)
    counted.pop(name, None)
    if fault.count:
        counted[name] = fault


def _counted_fault(name: CountedName, value: object) -> Counted:
    given = value if isinstance(value, dict) else {"count": 0 if value is None else value}
    allowed = {field.name for field in fields(Counted)} - (
        set() if name in WITH_DURATION else {"milliseconds"}
    )
    for part in given.keys() - allowed:
        raise WrongSwitch(f"{name}.{part}: there is no such part")
    fault = Counted(
        count=_whole(f"{name}.count", given.get("count", 1)),
        operation=_operation(f"{name}.operation", given.get("operation")),
        milliseconds=_pause(f"{name}.milliseconds", given.get("milliseconds")),
    )
    if name in WITH_DURATION and fault.count and fault.milliseconds is None:
        raise WrongSwitch(f"{name}.milliseconds: is missing")
    return fault


def _operation(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value in OPERATIONS):
        return value
    raise WrongSwitch(f"{name}: must be one of {', '.join(OPERATIONS)}, or null")


def _pause(name: str, value: object) -> int | None:
    return None if value is None else _milliseconds(name, value)


def _truth(name: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise WrongSwitch(f"{name}: must be true or false")


def _whole(name: str, value: object) -> int:
    if type(value) is int and value >= 0:
        return value
    raise WrongSwitch(f"{name}: must be a whole number, 0 or more")


def _milliseconds(name: str, value: object) -> int:
    if (milliseconds := _whole(name, value)) <= LONGEST_PAUSE_MS:
        return milliseconds
    raise WrongSwitch(f"{name}: must be at most {LONGEST_PAUSE_MS}")


def _rate(name: str, value: object) -> float:
    if 0 <= (rate := _seconds(name, value)) <= 1:
        return rate
    raise WrongSwitch(f"{name}: must be between 0 and 1")


def _seconds(name: str, value: object) -> float:
    # A century either way keeps every date that the bank writes inside the calendar.
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 3.2e9:
        return value
    raise WrongSwitch(f"{name}: must be a number within a century")


def _abandoned(name: str, value: object) -> str:
    if isinstance(value, str) and value in {"stopped", "finished"}:
        return value
    raise WrongSwitch(f"{name}: must be stopped or finished")


# Each checker returns its field's type, which `replace` cannot be told.
SWITCHES: Mapping[str, Callable[[str, object], Any]] = {
    "overlap": _truth,
    "forget": _rate,
    "abandoned": _abandoned,
    "store_delay_ms": _milliseconds,
    "database_down": _truth,
    "lock_timeout": _truth,
    "failure_rate": _rate,
    "min_latency_ms": _milliseconds,
    "max_latency_ms": _milliseconds,
    "auth_expiry_seconds": _seconds,
    "clock_offset_seconds": _seconds,
}
