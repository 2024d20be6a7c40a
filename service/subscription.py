"""Whether the provider's account webhook is there: judged, looked after once an hour, and created on request."""

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.delivery import DeliveryFailure, Job, Subscription, Subscriptions, UnconfirmedFailure
from service.metrics import Metrics

LOOKED_AFTER_EVERY = 3600.0
"""Seconds."""
JOB = "subscription"
"""The name of the job that the looks are; `ensure_webhooks` writes its note too."""
GONE, THERE, NOT_YET = "gone", "there", "not_yet"
"""What a look leaves in its job's note. What was never found is not gone: nobody has asked for it yet."""
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What of the provider's subscriptions calls us."""

    active: tuple[Subscription, ...]
    inactive: tuple[Subscription, ...]
    missing: tuple[str, ...]  # the events that no active one tells us of


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensured:
    """What `ensure` found, and the subscription that it had to create."""

    before: Coverage
    created: Subscription | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What must be there: these events, told to one of our `urls`; a new subscription calls the first."""

    urls: tuple[str, ...]
    events: tuple[str, ...]

    def covered(self, found: Sequence[Subscription]) -> Coverage:
        """Say what there is of it."""
        ours = [subscription for subscription in found if subscription.url in self.urls]
        told = {event for subscription in ours if subscription.active for event in subscription.events}
        return Coverage(
            active=tuple(subscription for subscription in ours if subscription.active),
            inactive=tuple(subscription for subscription in ours if not subscription.active),
            missing=tuple(event for event in self.events if event not in told),
        )


async def ensure(provider: Subscriptions, wanted: Wanted, secret: str) -> Ensured:
    """Create what is missing, and nothing else; raises as the provider does.

    A subscription that lacks an event gets one beside it, for that event alone: nobody is called twice for one event.
    """
    before = wanted.covered(await provider.subscriptions())
    if not before.missing:
        return Ensured(before=before)
    created: Subscription | None
    try:
        created = await provider.subscribe(wanted.urls[0], secret, before.missing)
    except UnconfirmedFailure as lost:
        known = {subscription.id for subscription in before.active}
        try:
            now = wanted.covered(await provider.subscriptions())
        except DeliveryFailure as exc:
            raise lost from exc  # that it is not known is what matters
        if now.missing:
            raise
        created = next((subscription for subscription in now.active if subscription.id not in known), None)
    return Ensured(before=before, created=created)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Looks that the subscription is still there: the provider deletes one whose deliveries fail."""

    provider: Subscriptions
    wanted: Wanted
    metrics: Metrics

    async def look(self, job: Job) -> str:
        """Look, say what is missing (loudly, if it was there), and return the note; raises as the provider does."""
        coverage = self.wanted.covered(await self.provider.subscriptions())
        if not coverage.missing:
            return THERE
        about = {"missing": ", ".join(coverage.missing), "inactive": len(coverage.inactive)}
        if job.note in (None, NOT_YET):
            _log.warning("service.not_subscribed", **about)
            return NOT_YET
        self.metrics.alarm("alarm.subscription_gone")
        _log.error("alarm.subscription_gone", **about)
        return GONE
