"""SMTP_RATE: a relay's pace is one for all processes, a turn once taken is kept, and nothing is asked of it in vain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from service.delivery import Composed, Outcome, Pace, Receipt, TransientFailure
from service.store import open_store
from tests.fakes import ACCOUNT, FakeChannel, FakePayments, FakeRenderer, MovedClock, a_transaction
from tests.store_values import request
from tests.workbench import Bench

MINUTE = timedelta(minutes=1)
PACE = Pace(count=30, seconds=60.0)


class Relay(FakeChannel):
    """Both processes' relay, which notes when it took what."""

    def __init__(self, clock: MovedClock) -> None:
        super().__init__(pace=PACE)
        self._clock = clock
        self.at: list[datetime] = []

    async def send(self, composed: Composed) -> Receipt:
        receipt = await super().send(composed)
        self.at.append(self._clock.now())
        return receipt

    def most_in_a_minute(self) -> int:
        return max(sum(at <= other < at + MINUTE for other in self.at) for at in self.at)


@dataclass
class Two:
    """Two processes, each with a store of its own, on one record and one relay."""

    first: Bench
    second: Bench
    clock: MovedClock
    relay: Relay

    async def arrive(self, count: int) -> None:
        for number in range(count):
            id_ = f"{ACCOUNT}.n{number}"
            self.first.payments.add(a_transaction(id_, created_at=self.clock.now()))
            await self.first.arrive(id_)

    async def work(self) -> None:
        await asyncio.gather(self.first.worker().drain(), self.second.worker().drain())

    async def work_for(self, seconds: int, *, step: float = 1.0) -> None:
        for _ in range(int(seconds / step)):
            await self.work()
            self.clock.advance(step)


@pytest.fixture
async def two(database_url: str) -> AsyncIterator[Two]:
    clock = MovedClock()
    relay, payments = Relay(clock), FakePayments(clock)
    async with AsyncExitStack() as stack:
        stores = [
            await stack.enter_async_context(open_store(database_url, clock=clock, migrate=False, patience=0))
            for _ in range(2)
        ]
        first, second = (
            Bench(clock=clock, store=store, payments=payments, channel=relay, renderer=FakeRenderer())
            for store in stores
        )
        yield Two(first=first, second=second, clock=clock, relay=relay)


async def test_two_processes_share_a_minutes_mails(two: Two) -> None:
    await two.arrive(45)
    await two.work_for(120, step=2.0)
    assert len(two.relay.at) == 45
    # Turns are evenly spaced; who comes to them is up to a moment late, and the next is not.
    assert two.relay.most_in_a_minute() <= PACE.count + 1
    early = sum(at < two.relay.at[0] + MINUTE / 2 for at in two.relay.at)
    assert early <= PACE.count / 2 + 1, "they went at once, and not at the pace"
    deliveries = await two.first.store.listing()
    assert {delivery.outcome for delivery in deliveries} == {Outcome.COMPLETED}
    assert len({composed.message_id for composed in two.relay.sent}) == 45


async def test_waiting_in_line_wears_out_nobodys_patience(two: Two) -> None:
    two.first.rules = two.second.rules = replace(two.first.rules, give_up_after=30.0)
    await two.arrive(40)
    await two.work_for(90, step=2.0)
    assert {delivery.outcome for delivery in await two.first.store.listing()} == {Outcome.COMPLETED}


async def test_a_persons_retry_keeps_its_place(two: Two) -> None:
    """Asked for again and again, it neither overtakes those before it nor takes one more turn each time."""
    await two.arrive(10)
    await two.work()
    waiting = [d for d in await two.first.store.listing() if d.outcome is Outcome.OPEN]
    assert len(waiting) == 9
    last = max(waiting, key=lambda delivery: delivery.due_at or delivery.received_at)
    due_at = last.due_at
    for _ in range(5):
        await two.second.store.retry(last.id, request())
        await two.work()
    assert len(two.relay.at) == 1, "it went before its turn"
    (again,) = await two.first.store.known([last.id])
    assert due_at is not None
    assert again.due_at is not None
    assert abs(again.due_at - due_at) <= timedelta(seconds=2), (due_at, again.due_at)
    await two.work_for(22)
    assert len(two.relay.at) == 10
    assert two.relay.most_in_a_minute() == 10
    spaces = [later - earlier for earlier, later in zip(two.relay.at, two.relay.at[1:], strict=False)]
    assert min(spaces) > timedelta(seconds=0.5), spaces
    assert {delivery.outcome for delivery in await two.first.store.listing()} == {Outcome.COMPLETED}


async def test_each_send_takes_a_turn_of_its_own(two: Two) -> None:
    """One that the relay put off stands in line again, as any other would."""
    two.relay.plan = [TransientFailure("451 4.7.1 try later")]
    await two.arrive(1)
    await two.work()
    two.clock.advance(61)
    await two.arrive(0)
    wait = await two.first.store.take_turn(ACCOUNT, "email", PACE)
    assert wait == 0
    await two.work()
    assert two.relay.at == []  # the turn of this moment was taken: it is the next one's
    two.clock.advance(2.1)
    await two.work()
    assert len(two.relay.at) == 1
