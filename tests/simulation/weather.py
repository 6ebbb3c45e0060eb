"""Which faults there are in a world, and how often each befalls what it may befall.

Each seed has some of them and not the others (swarm testing): a fault that is always there hides
what only happens in its absence.
"""

from dataclasses import dataclass, fields, replace
from typing import Final

from tests.simulation.choices import Choices

# Of each request, transaction, crossing … that the fault may befall.
RATES: Final = (0.003, 0.01, 0.03, 0.1)
SHARE_ON: Final = 0.45
# The partner's own manners, also when it is well.
NORMAL_FAILURE_RATE: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """Rates of faults. All zero, but for the bank's ordinary failures: the world is well."""

    # The bank, with a request.
    bank_fails: float = NORMAL_FAILURE_RATE  # a 500, and nothing was done
    bank_hangs: float = 0.0  # up to 25 s, of which it gives up after 15
    bank_hangs_up_before: float = 0.0
    bank_hangs_up_after: float = 0.0  # done and remembered
    bank_forgets: float = 0.0  # done, not remembered, hung up
    bank_garbles: float = 0.0  # done and remembered, and the answer is no JSON
    bank_mismatches: float = 0.0  # done and remembered, and the answer is of something else
    bank_stores_late: float = 0.0  # the key, well after the work
    # The bank, for a while.
    bank_database_down: float = 0.0
    bank_lock_trouble: float = 0.0
    bank_restarts: float = 0.0
    # The bank, in this world.
    bank_prunes_keys_early: float = 0.0
    # The wire to the bank.
    bank_unreachable: float = 0.0
    bank_request_lost: float = 0.0
    bank_reply_lost: float = 0.0
    bank_request_slow: float = 0.0
    bank_request_strays: float = 0.0  # it arrives after its sender gave up, up to two minutes later
    # The database.
    store_refuses: float = 0.0  # nothing was written, and we are told so
    store_acknowledgement_lost: float = 0.0
    store_commits_late: float = 0.0  # after we were told that it is out of reach
    store_slow: float = 0.0
    store_down: float = 0.0  # for a while
    # Our processes, at an input or output.
    process_dies: float = 0.0
    process_is_stopped: float = 0.0  # for a minute or so
    process_stalls: float = 0.0  # for a few seconds
    clock_jumps: float = 0.0  # the one on the wall
    # Clients, and the wire to us.
    request_lost: float = 0.0
    answer_lost: float = 0.0
    request_duplicated: float = 0.0  # and the copy comes later, out of order
    client_is_impatient: float = 0.0
    client_takes_a_new_key: float = 0.0
    client_races_itself: float = 0.0  # two commands at once
    client_reuses_a_key: float = 0.0  # for another request
    client_is_nosy: float = 0.0  # and asks for another merchant's payment


FAULTS: Final = tuple(field.name for field in fields(Weather))
WELL: Final = Weather()

# What is asked about seldom, or would leave nothing standing, if it were as frequent as the rest.
SCALES: Final = {
    "process_dies": 0.3,
    "process_is_stopped": 0.1,
    "process_stalls": 0.1,
    "store_refuses": 0.5,
    "bank_database_down": 4.0,
    "bank_lock_trouble": 4.0,
    "bank_restarts": 4.0,
    "bank_prunes_keys_early": 3.0,
    "store_down": 4.0,
    "clock_jumps": 4.0,
    "client_is_impatient": 4.0,
    "client_takes_a_new_key": 4.0,
    "client_races_itself": 4.0,
    "client_reuses_a_key": 2.0,
    "client_is_nosy": 4.0,
    "request_duplicated": 2.0,
}


def swarm(choices: Choices) -> Weather:
    """Some of the faults, each at some rate."""
    weather = WELL
    for name in FAULTS:
        if choices.happens(SHARE_ON):
            rate = choices.one_of(RATES) * SCALES.get(name, 1.0)
            weather = replace(weather, **{name: rate})
    return weather
