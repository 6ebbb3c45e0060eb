"""When a worker reconciles: every so many hours, one worker of all."""

import threading
from typing import Final

import structlog

from domain.commands import Cause
from infrastructure.bank.records import Stopped
from infrastructure.reconciliation import BankNotWell
from infrastructure.reconciliation_runs import RunLost
from infrastructure.services import Services, build_reconciliation

# How often a worker looks whether it is time, or whether another left a run unfinished.
LOOK_EVERY_SECONDS: Final = 60.0
SECONDS_IN_AN_HOUR: Final = 3600.0

log = structlog.get_logger(__name__)


class ReconciliationSchedule:
    """One worker's part in it."""

    def __init__(self, services: Services, stopping: threading.Event, cause: Cause) -> None:
        self._services = services
        self._stopping = stopping
        self._cause = cause

    def reconcile_if_due(self) -> None:
        """Goes on with an unfinished run or begins one that is due, to its end or until we stop; neither
        where it is off."""
        every_hours = self._services.settings.reconcile_every_hours
        if every_hours == 0:
            return
        runs, reconciliation = build_reconciliation(self._services, stopping=self._stopping)
        run = runs.take_if_due(every_hours * SECONDS_IN_AN_HOUR)
        if run is None:
            return
        log.info("reconciliation", run=str(run.run_id), resumed=run.is_resumed)
        try:
            report = reconciliation.carry_out(run, self._cause)
        except (BankNotWell, RunLost, Stopped) as error:
            log.info("reconciliation goes on later", because=type(error).__name__)
        else:
            log.info(
                "reconciled",
                checked=report.checked,
                skipped=report.skipped,
                unanswered=report.unanswered,
                differences=len(report.findings),
            )
