"""The one composition root: from settings to a ledger that works."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from domain.billing import Billing, RetryTerms
from domain.commands import Tenant
from domain.ports import Answers, Clock, Ids
from infrastructure import fault_points
from infrastructure.api_keys import ApiKeys
from infrastructure.bank.client import BankClient
from infrastructure.bank.disputes import BankDisputesOverHTTP
from infrastructure.bank.driver import BankDriver
from infrastructure.bank.records import BankRecordsOverHTTP, Pace
from infrastructure.bank_calls import PostgresBankCalls
from infrastructure.clock import RandomIds, SystemClock
from infrastructure.database import OF_REQUESTS, Pool, Waits, open_pool
from infrastructure.erasure import Erasure
from infrastructure.event_store import PostgresPaymentLedger
from infrastructure.idempotency import IdempotencyKeys
from infrastructure.rate_limiter import PostgresWindows, RateLimiter, Windows, redis_windows
from infrastructure.reconciliation import MOST_AT_ONCE, RATE_PER_SECOND, Reconciliation
from infrastructure.reconciliation_runs import ReconciliationRuns
from infrastructure.settings import Settings
from infrastructure.store_secrets import StoreSecrets
from infrastructure.stored_cards import StoredCards
from infrastructure.test_clocks import TestClocks
from infrastructure.vault import FernetVault, Fingerprints, keys_kept_in
from infrastructure.wallet import StoredWallet
from infrastructure.webhooks.endpoints import WebhookEndpoints
from infrastructure.webhooks.queue import DeliveryQueue, Tell

if TYPE_CHECKING:
    from infrastructure.webhooks.deliverer import Deliverer


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Everything that a process works with."""

    settings: Settings
    clock: Clock
    ids: Ids
    pool: Pool
    ledger: PostgresPaymentLedger
    api_keys: ApiKeys
    idempotency_keys: IdempotencyKeys
    fingerprints: Fingerprints
    rate_limiter: RateLimiter
    cards: StoredCards
    store_secrets: StoreSecrets
    bank_client: BankClient
    erasure: Erasure
    vault: FernetVault
    webhook_endpoints: WebhookEndpoints
    tell_events: Tell

    @property
    def billing(self) -> Billing:
        """The steps of subscriptions."""
        cancels = self.settings.after_invoice_retries == "cancel"
        retries = RetryTerms(days=self.settings.invoice_retry_days, cancels=cancels)
        return Billing(self.ledger, retries)

    @property
    def wallet(self) -> StoredWallet:
        """What customers left to be paid with."""
        return StoredWallet(self.ledger, self.cards)

    @property
    def test_clocks(self) -> TestClocks:
        """The clocks that tests move."""
        return TestClocks(self.pool)

    def close(self) -> None:
        """Gives the connections back."""
        self.ledger.close()
        self.pool.close()


class ReadingAnswers(Answers, Protocol):
    """Answers that may need more than a payment's history, and the events that merchants are told of."""

    def read_from(self, services: Services) -> None:
        """Where to read it."""

    def events(self, tenant: Tenant, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Events, by their rows, as they are published."""


def build_services(
    settings: Settings,
    *,
    answers: ReadingAnswers,
    connections: int,
    bank_connections: int,
    waits: Waits = OF_REQUESTS,
) -> Services:
    """Wires a process. `answers`: how it is told what came of commands, which the layers above know;
    `waits`: for the database."""
    assert settings.database_url is not None, "the caller starts the private database"
    _die_where_told_to(settings)
    pool = open_pool(settings.database_url, size=connections, waits=waits)
    bank_client = BankClient(settings.bank_url, connections=bank_connections)
    vault = FernetVault(vault_keys := settings.vault_keys or keys_kept_in(settings.data_dir))
    ledger = _ledger(settings, pool, bank_client, vault, answers)
    clock, ids = ledger.clock, ledger.ids
    store_secrets = StoreSecrets(pool, vault)
    services = Services(
        settings=settings,
        clock=clock,
        ids=ids,
        pool=pool,
        ledger=ledger,
        api_keys=ApiKeys(pool, clock, ids),
        idempotency_keys=IdempotencyKeys(pool),
        fingerprints=Fingerprints(vault_keys),
        rate_limiter=RateLimiter(_windows(settings, pool)),
        cards=StoredCards(pool, vault, store_secrets),
        store_secrets=store_secrets,
        bank_client=bank_client,
        erasure=Erasure(pool, ledger, clock),
        vault=vault,
        webhook_endpoints=WebhookEndpoints(pool, vault, ids),
        tell_events=answers.events,
    )
    return _with_closed_circles(services, answers)


def _ledger(
    settings: Settings, pool: Pool, bank_client: BankClient, vault: FernetVault, answers: Answers
) -> PostgresPaymentLedger:
    clock = SystemClock()
    return PostgresPaymentLedger(
        pool,
        bank=_driver(settings, clock, bank_client),
        bank_calls=PostgresBankCalls(pool, quiet_seconds=settings.quiet_seconds),
        clock=clock,
        ids=RandomIds(),
        vault=vault,
        answers=answers,
        lease_seconds=settings.lease_seconds,
    )


def _with_closed_circles(services: Services, answers: ReadingAnswers) -> Services:
    """The same; what the ledger is told by is told of what the ledger is a part of."""
    services.ledger.follow = services.billing.follow
    answers.read_from(services)
    return services


def _die_where_told_to(settings: Settings) -> None:
    if settings.fault_point is not None:
        fault_points.die_at(*settings.fault_point)


def _windows(settings: Settings, pool: Pool) -> Windows:
    return redis_windows(settings.redis_url) if settings.redis_url else PostgresWindows(pool)


def _driver(settings: Settings, clock: Clock, client: BankClient) -> BankDriver:
    return BankDriver(
        client,
        clock,
        profile=settings.bank_profile,
        timeout_seconds=settings.bank_timeout_seconds,
    )


def bank_records(
    services: Services, rate_per_second: float, stopping: threading.Event
) -> BankRecordsOverHTTP:
    """A look into the bank's records, at this rate, until `stopping` is set."""
    return BankRecordsOverHTTP(
        BankClient(services.settings.bank_url, connections=MOST_AT_ONCE),
        Pace(rate_per_second, services.clock, stopping.wait),
        timeout_seconds=services.settings.bank_timeout_seconds,
    )


def build_deliverer(services: Services) -> "Deliverer":
    """Who sends what merchants are to be told. Nobody but a worker loads what that takes."""
    from infrastructure.webhooks.deliverer import a_deliverer

    return a_deliverer(
        DeliveryQueue(services.pool),
        services.webhook_endpoints,
        services.tell_events,
        limit=services.settings.rate_limit_webhooks_per_minute,
        allows_local=not services.settings.is_production,
    )


def bank_disputes(services: Services) -> BankDisputesOverHTTP:
    """What the bank in use tells of disputes, and is told."""
    return BankDisputesOverHTTP(
        services.bank_client, timeout_seconds=services.settings.bank_timeout_seconds
    )


def build_reconciliation(
    services: Services,
    *,
    rate_per_second: float = RATE_PER_SECOND,
    stopping: threading.Event | None = None,
) -> tuple[ReconciliationRuns, Reconciliation]:
    """The runs of the reconciliation, and who carries them out until `stopping` is set."""
    stopping = stopping or threading.Event()
    runs = ReconciliationRuns(services.pool, services.ids)
    return runs, Reconciliation(
        pool=services.pool,
        ledger=services.ledger,
        runs=runs,
        records=bank_records(services, rate_per_second, stopping),
        clock=services.clock,
        rate_per_second=rate_per_second,
    )
