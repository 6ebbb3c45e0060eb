"""The port `Answers`: each settled command is answered by the family that it was asked through."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from api.gateway import outputs as gateway
from domain.payment import Payment
from domain.records import BankCall, StoredAnswer
from infrastructure.worker import WORKER_FAMILY

Writer = Callable[[Sequence[Payment.Event], BankCall], StoredAnswer]

WRITERS: Final[Mapping[str, Writer]] = {
    "gateway": gateway.settled,
    WORKER_FAMILY: lambda _history, _call: StoredAnswer(status=204, body=b""),  # nobody asked
}


class FamilyAnswers:
    """Writes final answers, for the request at hand and for the worker alike."""

    def settled(self, history: Sequence[Payment.Event], call: BankCall) -> StoredAnswer:
        """The answer in the words of the family and the dialect that asked."""
        return WRITERS[call.audience.family](history, call)
