"""What the settings say reaches what keeps to it."""

from typing import Final, LiteralString

from domain.bank import Unknown
from domain.records import BeginCall
from tests.api.an_api import an_api
from tests.builders import a_bank_call, a_cause, a_payment

DUE_IN: Final[LiteralString] = """
    SELECT extract(epoch FROM due_at - clock_timestamp())::float AS seconds FROM bank_calls
    WHERE bank_key = %(bank_key)s
"""


def test_a_bank_that_gives_up_sooner_or_later_changes_how_long_it_is_left_alone(
    database_url: str,
) -> None:
    payment = a_payment()
    call = a_bank_call(payment)
    with an_api(database_url, BANK_GIVES_UP_SECONDS="100") as api:
        ledger = api.services.ledger
        assert ledger.lease_seconds == api.services.settings.lease_seconds == 115
        ledger.save(
            payment,
            cause=a_cause(),
            history=payment.history,
            beside=[BeginCall(call=call, lease_seconds=ledger.lease_seconds)],
        )

        ledger.bank_calls.park(call, Unknown(reason="no answer", unanswered=True))

        with api.services.pool.connection() as connection:
            row = connection.execute(DUE_IN, {"bank_key": call.bank_key}).fetchone()
        assert row is not None
        assert 60 < row["seconds"] <= 105
