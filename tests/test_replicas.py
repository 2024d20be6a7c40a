"""Several processes at one record: killed at random, frozen past their leases, with clocks that do not agree."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from service.app import App, open_app
from service.delivery import Arrival, Outcome, Result, Settled, Step
from service.settings import Need, load_settings
from service.simulator.deeds import Answer, Behaviour, Phase
from service.simulator.faults import Fault, Kind
from tests.conftest import emptied
from tests.fakes import ACCOUNT, MovedClock
from tests.outside import HELD, Outside, address, an_hour_passes, open_outside, until
from tests.processes import Running
from tests.stage import Stage, environment, open_stage
from tests.torture.site import open_site

ANSWERED = Answer(after=True, body="usual", delay=HELD)
LATER = "451 4.7.1 Greylisted, please try again in 600 seconds"
SEED = 20
KILLS = 8


# --- killed at random -------------------------------------------------------------------------------------------------


async def test_replicas_that_are_killed_at_random(postgres_database: str, tmp_path: Path) -> None:
    random = Random(SEED)
    commands = ("serve", "serve", "worker")
    async with open_site("PostgreSQL", emptied(postgres_database), tmp_path / "site", random, commands) as site:
        slow = Kind(about="the reply takes a while", at=(*Phase,), how=Behaviour(delay=0.1))
        site.faults.commit(Fault(name="slow", probability=0.3), slow)
        selling = True

        async def sell() -> None:
            while selling:
                await site.sell()
                await asyncio.sleep(random.expovariate(6))

        load = asyncio.create_task(sell())
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0.5, 1.5))
            replica = random.choice(site.replicas)
            await asyncio.wait_for(replica.up.wait(), 60)
            replica.send(signal.SIGKILL)
        selling = False
        await load
        deliveries = await site.settle(lambda _: None)
        await site.judge(deliveries)
        assert sum(replica.started for replica in site.replicas) == len(commands) + KILLS
        assert {d.outcome for d in deliveries if d.decided_by} <= {Outcome.COMPLETED, Outcome.SKIPPED, Outcome.FAILED}
        doubted = [d for d in deliveries if d.outcome is Outcome.FAILED]
        assert all("deliveries resolve" in (d.reason or "") for d in doubted)


# --- frozen past the lease --------------------------------------------------------------------------------------------


@asynccontextmanager
async def another(outside: Outside) -> AsyncIterator[App]:
    """Open one more replica, in this process; it works when it is told to."""
    async with open_app(load_settings(outside.settings, need=Need.SERVE)) as app:
        yield app


def alarms(service: Running, name: str) -> int:
    whole, _, _ = service.output.decode().rpartition("\n")
    return sum(json.loads(line)["event"] == name for line in whole.splitlines())


async def test_a_lease_that_runs_out_while_its_owner_still_works(database_url: str, tmp_path: Path) -> None:
    async with open_outside(database_url, tmp_path, LEASE_SECONDS="4") as outside, outside.serving() as owner:
        taken = await outside.keep("taken", Phase.CONTENT, Behaviour(delay=HELD))
        repeated = await outside.keep("repeated", Phase.CONTENT, Behaviour(delay=HELD))
        captured = await outside.keep("captured", "capture", ANSWERED)
        fetched = await outside.keep("fetched", "cdn", ANSWERED)
        owner.process.send_signal(signal.SIGSTOP)
        outside.gate.open()  # the answers are there, and nobody takes them

        outside.mail.script.on(Phase.RCPT, Behaviour(reply=LATER), recipient=address("fetched"), times=1)
        async with another(outside) as app:
            while not await is_done(outside, captured) or await missed(outside, taken, repeated, fetched) < 3:
                await app.worker.drain()
                await asyncio.sleep(0.05)
            await asyncio.to_thread(an_hour_passes, outside.database_url, [repeated])
            while not await is_done(outside, repeated):
                await app.worker.drain()

        owner.process.send_signal(signal.SIGCONT)
        await until(lambda: alarms(owner, "alarm.lease_lost") == 4)
        assert not outside.copies("fetched")  # the other one has it, and knows that it is to wait
        await asyncio.to_thread(an_hour_passes, outside.database_url, [fetched])
        await outside.settled()
        await outside.judge()
        assert {name: len(outside.copies(name)) for name in ("taken", "repeated", "captured", "fetched")} == {
            "taken": 1, "repeated": 2, "captured": 1, "fetched": 1
        }  # fmt: skip
        assert [send.outcome for send in await outside.store.sends(taken)] == [Settled.ACCEPTED]
        assert await told(outside, taken) == [Result.UNCONFIRMED, Result.ACCEPTED]
        assert await told(outside, repeated) == [Result.UNCONFIRMED, Result.ACCEPTED, Result.ACCEPTED]
        assert await told(outside, fetched) == [Result.REFUSED, Result.ACCEPTED]
        assert len(outside.provider.captures_asked) == 4


async def is_done(outside: Outside, *ids: str) -> bool:
    return all(delivery.outcome is Outcome.COMPLETED for delivery in await outside.store.known(ids))


async def missed(outside: Outside, *ids: str) -> int:
    sends = [send for id_ in ids for send in await outside.store.sends(id_)]
    return sum(send.outcome in (Settled.UNCONFIRMED, Settled.REFUSED) for send in sends)


async def told(outside: Outside, id_: str) -> list[Result]:
    """Return what the history says of the sends, in its order."""
    return [entry.result for entry in await outside.store.history(id_) if entry.step is Step.DELIVER]


# --- clocks that do not agree -----------------------------------------------------------------------------------------


class Apart:
    """The clock of a machine that is minutes ahead (or behind); the database's own moves with the test's clock."""

    def __init__(self, clock: MovedClock, by: timedelta) -> None:
        self._clock = clock
        self._by = by

    @property
    def offset(self) -> timedelta:
        return self._clock.offset

    def now(self) -> datetime:
        return self._clock.now() + self._by

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


class Two:
    """Two replicas: the first has begun something, and the second goes on with it."""

    def __init__(self, stage: Stage, first: App, second: App) -> None:
        self.stage = stage
        self.first = first
        self.second = second

    async def begin(self, **terms: Any) -> str:
        id_ = self.stage.sell(**terms)
        await self.stage.running.caller.idle()
        await self.first.worker.drain()
        return id_

    async def goes_on(self, *, after: float) -> int:
        """Let the second work after so many seconds; return the number of its passes."""
        self.stage.clock.advance(after)
        return await self.second.worker.drain()


@asynccontextmanager
async def open_two(database_url: str, *, first_is_ahead: bool) -> AsyncIterator[Two]:
    settings = {"DELIVERY_LEASE_SECONDS": "60", "DELIVERY_UNCONFIRMED_DELAY": "900", "DELIVERY_RETRY_DELAYS": "20"}
    async with open_stage(database_url, settings=settings) as stage:
        env = environment(stage.running, stage.mail, public_url=stage.url, database_url=database_url) | settings
        clock = Apart(stage.clock, timedelta(minutes=5))
        loaded = load_settings(env, need=Need.SERVE)
        async with open_app(loaded, clock=clock, jitter=lambda: 0.5) as app:
            ahead, usual = app, stage.app
            yield Two(stage, *((ahead, usual) if first_is_ahead else (usual, ahead)))


async def a_delay_is_the_same_for_all(two: Two) -> None:
    two.stage.mail.script.on(Phase.RCPT, Behaviour(reply="451 4.3.0 Local error"), times=1)
    id_ = await two.begin()
    assert await two.goes_on(after=15) == 0
    assert await two.goes_on(after=6) == 1
    delivery = await two.stage.delivery(id_)
    assert (delivery.outcome, delivery.progress) == (Outcome.COMPLETED, ("delivered", "captured"))


async def a_lease_is_as_long_for_all(two: Two) -> None:
    id_ = two.stage.sell()
    await two.stage.running.caller.idle()
    (claim,) = await two.first.store.claim(ACCOUNT, "provider", 1, lease=60, suspects=False)
    assert await two.goes_on(after=50) == 0
    assert await two.first.store.renew([claim], lease=60) == {claim.token}
    assert await two.goes_on(after=55) == 0
    assert await two.goes_on(after=10) == 1
    assert (await two.stage.delivery(id_)).outcome is Outcome.COMPLETED


async def a_send_in_doubt_is_repeated_after_the_delay_and_as_it_was(two: Two) -> None:
    two.stage.mail.script.on(Phase.CONTENT, Behaviour(drop=True, keep=True), times=1)
    id_ = await two.begin()
    before = len(two.stage.mail.inbox)
    await two.second.store.receive(Arrival(account_id=ACCOUNT, transaction_id=id_, at=two.stage.clock.now()))
    assert await two.goes_on(after=690) == 1
    assert await two.goes_on(after=200) == 0
    assert len(two.stage.mail.inbox) == before
    await two.goes_on(after=15)
    first, second = two.stage.mail.inbox[-2:]
    assert first.content == second.content
    assert (await two.stage.delivery(id_)).progress == ("delivered", "captured")


async def a_capture_in_doubt_is_not_repeated_before_it_must_have_shown(two: Two) -> None:
    two.stage.faults.on("dropped-before", count=1, where="capture")
    id_ = await two.begin()
    for _ in range(5):
        await two.goes_on(after=10)
    assert not [seen for seen in two.stage.provider.captures_asked if seen.transaction_id == id_]
    await two.goes_on(after=60)
    assert [seen.transaction_id for seen in two.stage.provider.captures].count(id_) == 1
    assert (await two.stage.delivery(id_)).progress == ("delivered", "captured")


@pytest.mark.parametrize("first_is_ahead", [True, False], ids=["the first ahead", "the second ahead"])
async def test_clocks_that_do_not_agree(database_url: str, first_is_ahead: bool) -> None:
    async with open_two(database_url, first_is_ahead=first_is_ahead) as two:
        await a_delay_is_the_same_for_all(two)
        await a_lease_is_as_long_for_all(two)
        await a_send_in_doubt_is_repeated_after_the_delay_and_as_it_was(two)
        await a_capture_in_doubt_is_not_repeated_before_it_must_have_shown(two)
