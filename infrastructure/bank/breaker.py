"""When the bank is down: nothing new is begun with it, but for a probe now and then.

One for each process, and told of everything that the process hears of the bank: captures, voids,
refunds and what a worker resumes go out whatever it says, and are how it learns, too.

Written here since the libraries wrap one function, and let it run or not: pybreaker and
circuitbreaker decide and listen in one `call`, take only exceptions for failures, and pybreaker
holds its lock for as long as the call lasts, so that one request at a time could wait for the bank.
Here it is asked before anything is recorded, and told from other places, of other operations.
"""

import threading
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

# A well bank fails 5 % of its requests by chance, each on its own, so that so many in a row happen
# once in 0.05^8 = 3.9e-11 of them: at 300 requests a second, once in two and a half years, and then
# for seconds. A bank that is down makes two payments' worth of them.
FAILURES_IN_A_ROW: Final = 8
# How long nothing new is begun, and then how many may try in each such time. One that dies on its way
# to the bank was one of these, and the next time has others.
PAUSE_SECONDS: Final = 5.0
PROBES: Final = 3
# More than one, since a bank that is about to fall over answers now and then.
SUCCESSES_IN_A_ROW: Final = 3

log = structlog.get_logger(__name__)
OPEN: Final = Gauge(
    "counterfoil_bank_breaker_open",
    "1 while the process begins nothing new with the bank.",
    multiprocess_mode="liveall",
)
OPENED: Final = Counter(
    "counterfoil_bank_breaker_opened_total", "How often a process found the bank down."
)
SHED: Final = Counter(
    "counterfoil_authorizations_shed_total", "Authorizations not begun, since the bank is down."
)


class Breaker:
    """Closed while the bank answers, open while it does not. `monotonic`: seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._failures = 0
        self._successes = 0
        self._probes = 0
        self._probes_at: float | None = None  # when there are probes again; None: closed

    @property
    def is_open(self) -> bool:
        """Whether the bank is taken to be down."""
        return self._probes_at is not None

    def admits(self) -> bool:
        """Whether something new may be begun with the bank; while it is open, as one of the probes."""
        with self._lock:
            admitted = self._probes_at is None or self._is_a_probe(self._probes_at)
        if not admitted:
            SHED.inc()
        return admitted

    def give_back(self) -> None:
        """One that was admitted never went to the bank. Those who ask again for what was begun are
        the most while the bank is down: they are not to use up what the new ones are let through by."""
        with self._lock:
            self._probes = min(self._probes + 1, PROBES)

    def failed(self) -> None:
        """The bank was not reached, was silent, or said that it cannot."""
        with self._lock:
            self._successes = 0
            self._failures += 1
            if self._probes_at is None and self._failures >= FAILURES_IN_A_ROW:
                self._probes_at, self._probes = self._monotonic() + PAUSE_SECONDS, PROBES
                OPEN.set(1)
                OPENED.inc()
                log.error("the bank is down: no new authorizations")

    def worked(self) -> None:
        """The bank answered, whatever it was."""
        with self._lock:
            self._failures = 0
            self._successes += 1
            if self._probes_at is not None and self._successes >= SUCCESSES_IN_A_ROW:
                self._probes_at = None
                OPEN.set(0)
                log.info("the bank is back: new authorizations again")

    def _is_a_probe(self, probes_at: float) -> bool:
        now = self._monotonic()
        if now < probes_at:
            return False
        if self._probes == 0:
            if now < probes_at + PAUSE_SECONDS:
                return False
            self._probes_at, self._probes = now, PROBES
        self._probes -= 1
        return True
