"""Work that one process does for all: turns, time, trouble and the end, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from service.chores import LONGEST_LOOK, TRIED_AGAIN_AFTER, Chore, Chores
from service.delivery import AccountFailure, Job, StoreUnavailable, TransientFailure
from service.metrics import Metrics
from service.store import SqlStore, open_store
from tests.fakes import ACCOUNT, MovedClock

HOUR = 3600.0


class Diary:
    """A chore's work: remembers its turns, and does what `plan` says first."""

    def __init__(self) -> None:
        self.turns: list[Job] = []
        self.plan: list[Exception | Callable[[], Any]] = []
        self.note: str | None = "a note"

    async def run(self, job: Job) -> str | None:
        self.turns.append(job)
        if self.plan:
            step = self.plan.pop(0)
            if isinstance(step, Exception):
                raise step
            await step()
        return self.note


@pytest.fixture
def diary() -> Diary:
    return Diary()


@pytest.fixture
async def other_store(database_url: str, clock: MovedClock) -> AsyncIterator[SqlStore]:
    """The same record, as another process sees it."""
    async with open_store(database_url, clock=clock, migrate=False) as opened:
        yield opened


def process(store: SqlStore, clock: MovedClock, *chores: Chore, **changes: Any) -> Chores:
    values: dict[str, Any] = {
        "store": store,
        "clock": clock,
        "metrics": Metrics(),
        "account_id": ACCOUNT,
        "stop_grace": 5.0,
        "poll": 0.01,
    }
    return Chores(chores, **(values | changes))


def hourly(diary: Diary, name: str = "look", **changes: Any) -> Chore:
    values: dict[str, Any] = {"name": name, "every": HOUR, "run": diary.run}
    return Chore(**(values | changes))


def alarms(metrics: Metrics) -> dict[str, float]:
    lines = metrics.render(None).decode().splitlines()
    shown = [line.partition('alarms_total{alarm="')[2].partition('"} ') for line in lines if "alarms_total{" in line]
    return {name: float(count) for name, _, count in shown if float(count)}


async def test_a_chore_is_done_when_its_time_has_come_and_not_before(
    store: SqlStore, clock: MovedClock, diary: Diary
) -> None:
    chores = process(store, clock, hourly(diary))
    assert await chores.look() == ("look",)
    clock.advance(HOUR - 5)
    assert await chores.look() == ()
    clock.advance(6 + LONGEST_LOOK)
    assert await chores.look() == ("look",)
    first, second = diary.turns
    assert (first.name, first.last_run_at, first.note) == (f"{ACCOUNT}:look", None, None)
    assert second.note == "a note"
    assert second.last_run_at is not None
    assert timedelta(seconds=HOUR) <= second.now - second.last_run_at < timedelta(seconds=HOUR + 2 * LONGEST_LOOK)


async def test_chores_take_turns_and_each_has_its_own_time(store: SqlStore, clock: MovedClock) -> None:
    often, seldom = Diary(), Diary()
    chores = process(store, clock, hourly(often, "often", every=10.0), hourly(seldom, "seldom"))
    assert await chores.look() == ("often", "seldom")
    for _ in range(5):
        clock.advance(11)
        assert await chores.look() == ("often",)
    assert len(seldom.turns) == 1


async def test_accounts_in_one_database_have_chores_of_their_own(
    store: SqlStore, clock: MovedClock, diary: Diary
) -> None:
    assert await process(store, clock, hourly(diary)).look() == ("look",)
    assert await process(store, clock, hourly(diary), account_id="P12345678").look() == ("look",)


async def test_one_process_does_it_while_the_others_do_not(
    store: SqlStore, other_store: SqlStore, clock: MovedClock, diary: Diary
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> None:
        begun.set()
        await go_on.wait()

    diary.plan = [slowly]
    one, other = process(store, clock, hourly(diary)), process(other_store, clock, hourly(diary))
    doing = asyncio.create_task(one.look())
    await begun.wait()
    assert await other.look() == ()
    go_on.set()
    assert await doing == ("look",)
    clock.advance(LONGEST_LOOK)
    assert await other.look() == ()
    clock.advance(HOUR)
    assert await other.look() == ("look",)
    assert len(diary.turns) == 2


async def test_a_dead_process_keeps_its_turn_until_its_lease_ends(
    store: SqlStore, other_store: SqlStore, clock: MovedClock, diary: Diary
) -> None:
    assert await store.take_job(f"{ACCOUNT}:look", every=HOUR, lease=900) is not None
    chores = process(other_store, clock, hourly(diary))
    clock.advance(890)
    assert await chores.look() == ()
    clock.advance(LONGEST_LOOK)
    assert await chores.look() == ("look",)


@pytest.mark.parametrize("trouble", [TransientFailure("503"), AccountFailure("401"), StoreUnavailable("down")])
async def test_trouble_is_told_and_tried_again_after_a_while(
    store: SqlStore, clock: MovedClock, diary: Diary, trouble: Exception
) -> None:
    other, metrics = Diary(), Metrics()
    diary.plan = [trouble]
    chores = process(store, clock, hourly(diary), hourly(other, "other"), metrics=metrics)
    with capture_logs() as logs:
        assert await chores.look() == ("other",)
    assert [(line["event"], line["chore"], line["reason"]) for line in logs] == [
        ("alarm.chore_failed", "look", str(trouble))
    ]
    assert alarms(metrics) == {"chore_failed": 1}
    clock.advance(TRIED_AGAIN_AFTER - 5)
    assert await chores.look() == ()
    clock.advance(6)
    assert await chores.look() == ("look",)
    assert [turn.last_run_at for turn in diary.turns] == [None, None]


async def test_a_bug_is_told_whole_and_stops_nothing_else(store: SqlStore, clock: MovedClock, diary: Diary) -> None:
    other, metrics = Diary(), Metrics()
    diary.plan = [ZeroDivisionError("a bug"), TimeoutError("somebody's own")]
    chores = process(store, clock, hourly(diary), hourly(other, "other"), metrics=metrics)
    with capture_logs() as logs:
        assert await chores.look() == ("other",)
        clock.advance(TRIED_AGAIN_AFTER + 1)
        assert await chores.look() == ()
    assert [(line["event"], line["chore"], line["exc_info"]) for line in logs] == [
        ("alarm.unexpected_error", "look", True)
    ] * 2
    assert alarms(metrics) == {"unexpected_error": 2}


async def test_a_failed_turn_is_free_for_another_process_and_keeps_the_note(
    store: SqlStore, other_store: SqlStore, clock: MovedClock, diary: Diary
) -> None:
    one, other = process(store, clock, hourly(diary)), process(other_store, clock, hourly(diary))
    await one.look()
    clock.advance(HOUR + LONGEST_LOOK)
    diary.plan = [TransientFailure("503")]
    assert await one.look() == ()
    assert await other.look() == ("look",)
    assert diary.turns[-1].note == "a note"


async def test_a_turn_ends_before_its_lease_does(store: SqlStore, clock: MovedClock, diary: Diary) -> None:
    ended: list[str] = []

    async def for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cut short")

    diary.plan = [for_ever]
    metrics = Metrics()
    chores = process(store, clock, hourly(diary, lease=0.3), metrics=metrics)
    with capture_logs() as logs:
        assert await asyncio.wait_for(chores.look(), 5) == ()
    assert ended == ["cut short"]
    assert [(line["event"], line["reason"]) for line in logs] == [("alarm.chore_failed", "not done within 0.27 s")]
    assert await store.take_job(f"{ACCOUNT}:look", every=HOUR, lease=60) is not None


async def test_a_record_that_does_not_answer_is_not_asked_every_second(clock: MovedClock, diary: Diary) -> None:
    class Broken:
        asked = 0

        async def take_job(self, _name: str, *, every: float, lease: float) -> Job | None:
            Broken.asked += 1
            raise StoreUnavailable(f"down ({every}, {lease})")

    chores = process(Broken(), clock, hourly(diary))  # type: ignore[arg-type]
    for _ in range(3):
        assert await chores.look() == ()
    assert Broken.asked == 1
    clock.advance(TRIED_AGAIN_AFTER + 1)
    await chores.look()
    assert Broken.asked == 2


async def test_it_runs_until_it_is_stopped(store: SqlStore, clock: MovedClock, diary: Diary) -> None:
    chores = process(store, clock, hourly(diary))
    running = asyncio.create_task(chores.run())
    async with asyncio.timeout(10):
        while len(diary.turns) < 3:
            clock.advance(HOUR / 2)
            await asyncio.sleep(0.02)
    chores.stop()
    await asyncio.wait_for(running, 2)


async def test_a_stop_lets_the_turn_in_hand_end_and_begins_no_other(
    store: SqlStore, clock: MovedClock, diary: Diary
) -> None:
    begun, go_on, other = asyncio.Event(), asyncio.Event(), Diary()

    async def slowly() -> None:
        begun.set()
        await go_on.wait()

    diary.plan = [slowly]
    chores = process(store, clock, hourly(diary), hourly(other, "other"))
    running = asyncio.create_task(chores.run())
    await begun.wait()
    async with asyncio.timeout(10):
        while not other.turns:  # what is slow holds up no other
            await asyncio.sleep(0.01)
    chores.stop()
    clock.advance(2 * HOUR)
    await asyncio.sleep(0.05)
    assert not running.done()
    clock.advance(-2 * HOUR)
    go_on.set()
    await asyncio.wait_for(running, 2)
    assert (len(diary.turns), len(other.turns)) == (1, 1)
    assert await store.take_job(f"{ACCOUNT}:look", every=HOUR, lease=60) is None


async def test_a_turn_that_outlasts_the_grace_is_given_back(store: SqlStore, clock: MovedClock, diary: Diary) -> None:
    begun = asyncio.Event()

    async def for_ever() -> None:
        begun.set()
        await asyncio.Event().wait()

    diary.plan = [for_ever]
    chores = process(store, clock, hourly(diary), stop_grace=0.05)
    running = asyncio.create_task(chores.run())
    await begun.wait()
    chores.stop()
    await asyncio.wait_for(running, 5)
    assert await store.take_job(f"{ACCOUNT}:look", every=HOUR, lease=60) is not None
