"""What processes share beside deliveries: pauses with their probes, and the turns at jobs. On both databases."""

import asyncio
from dataclasses import replace

import psycopg
import pytest

from service.delivery import PROVIDER_LANE, Arrival, Job, Pause, Probe, Schedule, StoreUnavailable
from service.store import SqlStore, open_store
from tests.conftest import emptied
from tests.fakes import MovedClock
from tests.store_values import ACCOUNT, AT, arrival, claim_all, claimed, near, only
from tests.test_store_work import deadlocks

OTHER = "T87654321"
LANES = ("email", PROVIDER_LANE)
FAULT = "the mail relay did not let us sign in: 535"


async def at_fault(store: SqlStore, lane: str = "email", *, probe_in: float = 60) -> bool:
    return await store.pause(ACCOUNT, lane, FAULT, by=None, probe_in=probe_in)


async def waits_for_email(store: SqlStore, number: int = 1, *, running: bool = False) -> None:
    claim = await claimed(store, number)
    since = claim.now if running else None
    await store.save(claim, replace(claim.delivery, lane="email", patience_since=since), Schedule(due_in=0))


async def probe(store: SqlStore, *, lease: float = 60) -> Probe | None:
    return await store.take_probe(ACCOUNT, LANES, lease=lease)


async def test_a_paused_lane_is_not_claimed(store: SqlStore) -> None:
    await waits_for_email(store)
    assert await at_fault(store)
    assert await claim_all(store, lane="email") == ()
    assert await store.resume(ACCOUNT, "email")
    assert len(await claim_all(store, lane="email")) == 1
    assert not await store.resume(ACCOUNT, "email")


async def test_nothing_is_claimed_while_the_provider_is_paused(store: SqlStore) -> None:
    await waits_for_email(store)
    assert await at_fault(store, PROVIDER_LANE)
    assert await claim_all(store, lane="email") == ()
    taken = await store.claim(ACCOUNT, "email", 1, lease=60, suspects=False, probing=PROVIDER_LANE)
    assert len(taken) == 1, "a probe of the provider may take what waits for a channel"


async def test_a_probe_of_the_provider_does_not_pass_by_the_channels_own_pause(store: SqlStore) -> None:
    await waits_for_email(store)
    await at_fault(store, PROVIDER_LANE)
    await at_fault(store, "email")
    for probing in (PROVIDER_LANE, "email"):
        assert await store.claim(ACCOUNT, "email", 1, lease=60, suspects=False, probing=probing) == ()


async def test_a_pause_is_one_accounts(store: SqlStore) -> None:
    await store.receive(Arrival(transaction_id=f"{OTHER}.1", account_id=OTHER, at=AT))
    await at_fault(store, PROVIDER_LANE)
    assert await store.pauses(OTHER) == ()
    assert len(await store.claim(OTHER, PROVIDER_LANE, 9, lease=60, suspects=False)) == 1


async def test_a_fault_is_there_once_and_a_further_one_only_puts_the_probe_off(
    store: SqlStore, clock: MovedClock
) -> None:
    assert await at_fault(store, probe_in=60)
    assert not await at_fault(store, probe_in=10)
    (pause,) = await store.pauses(ACCOUNT)
    assert near(pause.next_probe_at, clock.now(), within=65)
    assert not near(pause.next_probe_at, clock.now(), within=30)
    assert not await at_fault(store, probe_in=600)
    (pause,) = await store.pauses(ACCOUNT)
    assert not near(pause.next_probe_at, clock.now(), within=500)


async def test_a_persons_pause_takes_the_place_of_a_fault_and_is_not_touched_by_one(
    store: SqlStore, clock: MovedClock
) -> None:
    await at_fault(store)
    assert not await store.pause(ACCOUNT, "email", "new relay tonight", by="kari", probe_in=None)
    await at_fault(store)
    (pause,) = await store.pauses(ACCOUNT)
    assert pause == Pause(lane="email", reason="new relay tonight", since=pause.since, by="kari")
    clock.advance(86400)
    assert await probe(store) is None, "what a person holds is not tried"


async def test_one_process_tries_at_a_time(store: SqlStore, clock: MovedClock) -> None:
    await at_fault(store)
    assert await probe(store) is None, "not before its time"
    clock.advance(61)
    first = await probe(store)
    assert first is not None
    assert (first.lane, first.probes) == ("email", 0)
    assert await probe(store) is None, "somebody is at it"
    clock.advance(61)
    second = await probe(store)
    assert second is not None, "who had it is dead"
    assert not await store.end_probe(first, fault=None, next_in=60), "and its late answer does not count"
    assert await store.end_probe(second, fault=None, next_in=60)
    assert await store.pauses(ACCOUNT) == ()


async def test_a_probe_that_takes_long_is_kept_while_its_process_lives(store: SqlStore, clock: MovedClock) -> None:
    await at_fault(store)
    clock.advance(61)
    first = await probe(store)
    assert first is not None
    for _ in range(5):
        clock.advance(40)
        await store.renew_probe(first, lease=60)
        assert await probe(store) is None
    assert await store.end_probe(first, fault=None, next_in=60)


async def test_one_lane_is_tried_beside_another(store: SqlStore, clock: MovedClock) -> None:
    for lane in LANES:
        await at_fault(store, lane)
    clock.advance(61)
    taken = [await probe(store), await probe(store)]
    assert {found.lane for found in taken if found} == set(LANES)


@pytest.mark.parametrize("verb", ["pause", "renew", "end"])
async def test_who_ends_a_pause_and_who_writes_to_it_never_wait_for_each_other_in_a_circle(
    postgres_database: str, clock: MovedClock, verb: str
) -> None:
    """The end of a pause locks its row and then deliveries; a group locks deliveries and then what belongs to none."""
    emptied(postgres_database)
    before = deadlocks(postgres_database)
    async with open_store(postgres_database, clock=clock) as one, open_store(postgres_database, clock=clock) as other:
        for number in (1, 2):
            await waits_for_email(one, number, running=True)
        await at_fault(one)
        clock.advance(61)
        tried = await probe(one)
        assert tried is not None
        with psycopg.connect(postgres_database) as third:
            third.execute("SELECT id FROM deliveries WHERE id = %s FOR UPDATE", [f"{ACCOUNT}.1"])
            ends = asyncio.create_task(other.resume(ACCOUNT, "email"))
            await waiting(postgres_database, 1)
            group = asyncio.gather(one.receive(arrival(2)), write(one, verb, tried))
            await waiting(postgres_database, 2)
        assert await ends
        await group
    assert deadlocks(postgres_database) == before


async def write(store: SqlStore, verb: str, tried: Probe) -> None:
    if verb == "pause":
        await store.pause(ACCOUNT, "email", FAULT, by="kari", probe_in=None)
    elif verb == "renew":
        await store.renew_probe(tried, lease=60)
    else:
        await store.end_probe(tried, fault=FAULT, next_in=60)


async def waiting(url: str, count: int) -> None:
    """Return when so many connections wait for a row that another has."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(10):
        with psycopg.connect(url, autocommit=True) as connection:
            while connection.execute(query).fetchone() != (count,):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("first", LANES)
async def test_pauses_that_overlap_take_their_time_off_once(store: SqlStore, clock: MovedClock, first: str) -> None:
    await waits_for_email(store, running=True)
    clock.advance(1800)
    second = next(lane for lane in LANES if lane != first)
    await at_fault(store, first)
    clock.advance(1000)
    await at_fault(store, second)
    clock.advance(1000)
    await store.resume(ACCOUNT, first)
    clock.advance(1000)
    await store.resume(ACCOUNT, second)
    since = (await only(store)).patience_since
    assert since is not None
    assert abs((clock.now() - since).total_seconds() - 1800) < 5


@pytest.mark.parametrize("outer", LANES)
async def test_a_pause_within_another_takes_nothing_off(store: SqlStore, clock: MovedClock, outer: str) -> None:
    await waits_for_email(store, running=True)
    inner = next(lane for lane in LANES if lane != outer)
    clock.advance(100)
    await at_fault(store, outer)
    clock.advance(1000)
    await at_fault(store, inner)
    clock.advance(1000)
    await store.resume(ACCOUNT, inner)
    clock.advance(1000)
    await store.resume(ACCOUNT, outer)
    since = (await only(store)).patience_since
    assert since is not None
    assert abs((clock.now() - since).total_seconds() - 100) < 5


async def test_a_probe_that_fails_waits_for_the_next(store: SqlStore, clock: MovedClock) -> None:
    await at_fault(store)
    clock.advance(61)
    taken = await probe(store)
    assert taken is not None
    assert not await store.end_probe(taken, fault="still 535", next_in=45)
    (pause,) = await store.pauses(ACCOUNT)
    assert (pause.probes, pause.reason) == (1, "still 535")
    assert near(pause.next_probe_at, clock.now(), within=46)
    clock.advance(46)
    again = await probe(store)
    assert again is not None
    assert again.probes == 1


@pytest.mark.parametrize("lane", LANES)
async def test_the_give_up_clock_stands_still_while_paused(store: SqlStore, clock: MovedClock, lane: str) -> None:
    await waits_for_email(store, running=True)
    before = (await only(store)).patience_since
    assert before is not None
    clock.advance(10)
    await at_fault(store, lane)
    clock.advance(86400)
    await store.resume(ACCOUNT, lane)
    after = (await only(store)).patience_since
    assert after is not None
    assert abs((after - before).total_seconds() - 86400) < 5


async def test_the_clock_of_another_lane_goes_on(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    await store.save(claim, replace(claim.delivery, patience_since=claim.now), Schedule(due_in=0))
    await at_fault(store, "email")
    clock.advance(86400)
    await store.resume(ACCOUNT, "email")
    assert (await only(store)).patience_since == claim.now


async def test_a_clock_that_began_during_the_pause_begins_at_its_end(store: SqlStore, clock: MovedClock) -> None:
    await at_fault(store, "email")
    clock.advance(3600)
    await waits_for_email(store, running=True)
    clock.advance(3600)
    await store.resume(ACCOUNT, "email")
    assert near((await only(store)).patience_since, clock.now())


async def turn(store: SqlStore, *, every: float = 600, lease: float = 60) -> Job | None:
    return await store.take_job("reconcile", every=every, lease=lease)


async def test_a_job_is_one_processs_and_is_due_again_in_time(store: SqlStore, clock: MovedClock) -> None:
    job = await turn(store)
    assert job is not None
    assert (job.last_run_at, job.note) == (None, None)
    assert await turn(store) is None
    await store.end_job(job, done=True, note="seen 12")
    assert await turn(store) is None, "it was just done"
    clock.advance(601)
    again = await turn(store)
    assert again is not None
    assert again.note == "seen 12"
    assert again.last_run_at is not None
    assert abs((again.now - again.last_run_at).total_seconds() - 601) < 5


async def test_a_dead_processs_turn_passes_on(store: SqlStore, clock: MovedClock) -> None:
    job = await turn(store)
    clock.advance(61)
    next_one = await turn(store)
    assert job is not None
    assert next_one is not None
    await store.end_job(job, done=True, note="too late")
    assert await turn(store) is None, "the late end must not end the other's turn"
    await store.end_job(next_one, done=False, note="half")
    third = await turn(store)
    assert third is not None, "what was not done is due at once"
    assert third.note == "half"


async def test_of_many_processes_one_gets_the_turn(database_url: str, clock: MovedClock) -> None:
    async with (
        open_store(database_url, clock=clock) as one,
        open_store(database_url, clock=clock) as two,
        open_store(database_url, clock=clock) as three,
    ):
        for _ in range(5):
            turns = await asyncio.gather(*(turn(store) for store in (one, two, three)), return_exceptions=True)
            got = [job for job in turns if isinstance(job, Job)]
            assert len(got) == 1
            assert all(other is None or isinstance(other, StoreUnavailable | Job) for other in turns)
            clock.advance(61)
