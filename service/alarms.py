"""Alarms in the log for what comes about without anybody's doing: it shows in the record alone, as time passes."""

from dataclasses import dataclass

import structlog

from service.alerting import Lookout
from service.delivery import Case, Concern, Condition, Job
from service.metrics import Metrics

_WAY = "log"
# What else a person must know is logged by whoever is there when it happens.
_EVENTS = {
    Condition.UNDELIVERED: "alarm.captured_not_delivered",
    Condition.UNCAPTURED: "alarm.delivered_not_captured",
    Condition.OVERDUE: "alarm.overdue",
    Condition.SILENCE: "alarm.silence",
    Condition.NOT_BILLED: "alarm.group_not_billed",
    Condition.GROUP_DIFFERS: "alarm.group_differs",
}
_OF_GROUPS = frozenset({Condition.NOT_BILLED, Condition.GROUP_DIFFERS})
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarms:
    """Counts each case once, in one process for all, and logs the first; again when it has gone and come back."""

    lookout: Lookout
    metrics: Metrics

    async def turn(self, _job: Job) -> None:
        """Count what is new, and log of each condition the first cases, each with how many there are.

        Raises `StoreUnavailable`.
        """
        news = await self.lookout.news(_WAY, _EVENTS)
        for one in news:
            event = _EVENTS[one.concern.condition]
            self.metrics.alarm(event, one.concern.count)
            for case in one.concern.cases:
                _say(event, case, one.concern)
        if news:
            upto = max(one.latest for one in news)
            await self.lookout.store.told(self.lookout.account_id, _WAY, upto)


def _say(event: str, case: Case, concern: Concern) -> None:
    name = "group_id" if concern.condition in _OF_GROUPS else "transaction_id"
    about = {name: case.subject} if case.subject else {}
    since = case.since.isoformat() if case.since else None
    _log.warning(event, **about, reason=case.reason, since=since, count=concern.count)
