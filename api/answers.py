"""The port `Answers`: each settled command is answered by the family that it was asked through."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from api.async_family import outputs as async_family
from api.async_family import routes as async_routes
from api.gateway import outputs as gateway
from api.payments import events, intents, payments, refunds, subscriptions
from api.payments.reading import Reader
from domain.bank import Operation
from domain.commands import Tenant
from domain.payment import Payment
from domain.records import BankCall, StoredAnswer
from infrastructure.services import Services
from infrastructure.worker import WORKER_FAMILY

NOBODY_ASKED: Final = StoredAnswer(status=204, body=b"")


class FamilyAnswers:
    """Writes final answers, for the request at hand and for the worker alike."""

    def __init__(self) -> None:
        self._services: Services | None = None

    def read_from(self, services: Services) -> None:
        """Where to read what an answer tells beyond a payment's history."""
        self._services = services

    def events(self, tenant: Tenant, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Events, by their rows, as merchants are told of them."""
        assert self._services is not None, "a process has told where to read"
        return events.told(self._services, tenant, rows)

    def settled(  # noqa: PLR0911 - one return a family
        self, history: Sequence[Payment.Event], call: BankCall
    ) -> StoredAnswer:
        """The answer in the words of the family and the dialect that asked."""
        match call.audience.family:
            # A refund of the gateway's was asked for before refunds had a family of their own.
            case "gateway" | refunds.FAMILY if call.operation == Operation.REFUND:
                return refunds.settled(history, call, partial(self._reader, call))
            case "gateway":
                return gateway.settled(history, call)
            case intents.FAMILY | intents.CREATED:
                return intents.settled(self._reader(call), history, call)
            case subscriptions.CREATED | subscriptions.PAID:
                assert self._services is not None, "a process has told where to read"
                return subscriptions.settled(self._services, history, call)
            case payments.FAMILY:
                return payments.settled(history, call)
            case async_routes.FAMILY:
                return async_family.settled(history, call)
            case family if family == WORKER_FAMILY:
                return NOBODY_ASKED
            case family:
                raise AssertionError(f"nobody answers for {family}")

    def _reader(self, call: BankCall) -> Reader:
        assert self._services is not None, "a process has told where to read"
        return Reader(self._services, call.tenant)
