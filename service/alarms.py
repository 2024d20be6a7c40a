"""Alarms in the log for what comes about without anybody's doing: it shows in the record alone, as time passes."""

from dataclasses import dataclass

import structlog

from service.alerting import Lookout
from service.delivery import Case, Condition, Job
from service.metrics import Metrics

_WAY = "log"
# What else a person must know is logged by whoever is there when it happens.
_EVENTS = {
    Condition.UNDELIVERED: "alarm.captured_not_delivered",
    Condition.UNCAPTURED: "alarm.delivered_not_captured",
    Condition.OVERDUE: "alarm.overdue",
    Condition.SILENCE: "alarm.silence",
}
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """Logs and counts each case once, in one process for all; again only when it has gone away and come back."""

    lookout: Lookout
    metrics: Metrics

    async def turn(self, _job: Job) -> None:
        """Log what is new: of each condition the first cases, with how many there are; raises `StoreUnavailable`."""
        news = await self.lookout.news(_WAY, _EVENTS)
        for one in news:
            for case in one.concern.cases:
                self._raise(_EVENTS[one.concern.condition], case, one.concern.count)
        if news:
            upto = max(one.latest for one in news)
            await self.lookout.store.told(self.lookout.account_id, _WAY, upto)

    def _raise(self, event: str, case: Case, count: int) -> None:
        self.metrics.alarm(event)
        about = {"delivery_id": case.subject} if case.subject else {}
        since = case.since.isoformat() if case.since else None
        _log.warning(event, **about, reason=case.reason, since=since, count=count)
