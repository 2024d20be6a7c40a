"""What is reported of messages into the record: counted, said aloud when it is a bounce, and tried again when early."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from service.delivery import Job, Report, Reported, Store
from service.metrics import Metrics

TRIED_EVERY = 60.0
"""Seconds between two looks whether a send is known by now that was reported of before."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """Writes reports of one account's messages."""

    store: Store
    metrics: Metrics
    account_id: str
    wake: Callable[[], None] = lambda: None

    async def take(self, reports: Sequence[Report]) -> tuple[Reported, ...]:
        """Write reports, each committed by itself; raises `StoreUnavailable`, and then all may be told again."""
        results = []
        for report in reports:
            result = await self.store.report(self.account_id, report)
            self.metrics.report(report.channel, result)
            if result is Reported.BOUNCED:
                await self._alarm(report)
            results.append(result)
        return tuple(results)

    async def turn(self, _job: Job) -> str | None:
        """Try the reports again that came before their send was written; the chore "reports"."""
        for report in await self.store.unmatched_reports(self.account_id):
            result = await self.store.report(self.account_id, report)
            if result in (Reported.RECORDED, Reported.BOUNCED):
                self.metrics.report(report.channel, result)
            if result is Reported.BOUNCED:
                await self._alarm(report)
        return None

    async def _alarm(self, report: Report) -> None:
        """Say that a message was not delivered after all, and let it be seen to at once."""
        self.metrics.alarm("alarm.bounced")
        send = await self.store.reported(self.account_id, report)
        _log.warning("alarm.bounced", transaction_id=send and send.delivery_id, channel=report.channel)
        self.wake()
