"""The real pipeline, worker and store with a provider and a channel of our own: what a delivery becomes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from service.decide import Promise, Rules
from service.delivery import PROVIDER_LANE, Arrival, CaptureOrder, Delivery, Result, Step, Store
from service.metrics import Metrics
from service.pipeline import Parts, Pipeline, Room
from service.routing import Routes
from service.store import open_store
from service.worker import Worker
from tests.fakes import (
    ACCOUNT,
    FakeChannel,
    FakeInspector,
    FakeLinks,
    FakePayments,
    FakeRenderer,
    MovedClock,
    a_transaction,
)

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
ID = f"{ACCOUNT}.a"
RULES = Rules(
    order=CaptureOrder.AFTER_DELIVERY,
    retry_delays=(60.0, 300.0),
    give_up_after=3600,
    capture_give_up_after=86400,
    unconfirmed_retries=1,
    unconfirmed_delay=900,
    capture_timeout=60,
    min_days_before_due=3,
    timezone=ZoneInfo("Europe/Oslo"),
)


@dataclass
class Bench:
    """One service without its edges."""

    clock: MovedClock
    store: Store
    payments: FakePayments
    channel: FakeChannel
    renderer: FakeRenderer
    rules: Rules = RULES
    born_at: datetime = LONG_AGO
    others: tuple[FakeChannel, ...] = ()  # those that come after `channel`
    routes: Routes | None = None
    links: FakeLinks | None = None
    inspector: FakeInspector = field(default_factory=FakeInspector)

    def worker(self, *, stop_grace: float = 5, alone: float = 20, concurrency: int = 4) -> Worker:
        metrics = Metrics()
        channels = (self.channel, *self.others)
        promises = tuple(Promise(channel=c.name, guarantee=c.guarantee, reports=c.reports) for c in channels)
        rules = replace(self.rules, promises=promises)
        parts = Parts(
            store=self.store,
            payments=self.payments,
            channels=channels,
            renderer=self.renderer,
            inspector=self.inspector,
            rules=rules,
            room=Room(limit=2**26, largest=2**20),
            trial_room=Room(limit=2**26, largest=2**20),
            born_at=self.born_at,
            clock=self.clock,
            jitter=lambda: 0.5,
            metrics=metrics,
            routes=self.routes or Routes(default=tuple(channel.name for channel in channels)),
            links=self.links,
        )
        return Worker(
            store=self.store,
            pipeline=Pipeline(parts),
            rules=rules,
            clock=self.clock,
            metrics=metrics,
            account_id=ACCOUNT,
            tries={**{channel.name: channel.check for channel in channels}, PROVIDER_LANE: self.payments.check},
            concurrency=concurrency,
            lease=60,
            stop_grace=stop_grace,
            alone=alone,
        )

    async def arrive(self, transaction_id: str = ID, *, event: bool = False) -> None:
        arrival = Arrival(transaction_id=transaction_id, account_id=ACCOUNT, at=self.clock.now(), event=event)
        await self.store.receive(arrival)

    async def work(self, *, after: float = 0) -> Delivery:
        self.clock.advance(after)
        await self.worker().drain()
        return await self.delivery()

    async def work_all(self, *, after: float = 0) -> None:
        """Work as `work`, where there is more than one delivery."""
        self.clock.advance(after)
        await self.worker().drain()

    async def delivery(self, transaction_id: str = ID) -> Delivery:
        (found,) = await self.store.find(transaction_id)
        return found

    async def told(self) -> list[tuple[Step, Result]]:
        return [(entry.step, entry.result) for entry in await self.store.history(ID)]


@asynccontextmanager
async def open_bench(url: str) -> AsyncIterator[Bench]:
    """Open a bench on this database, with one transaction at its provider."""
    clock = MovedClock()
    async with open_store(url, clock=clock, patience=0) as store:
        payments = FakePayments(clock)
        payments.add(a_transaction())
        yield Bench(clock=clock, store=store, payments=payments, channel=FakeChannel(), renderer=FakeRenderer())
