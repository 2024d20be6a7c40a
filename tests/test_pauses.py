"""Trouble of our own with a channel or the provider: it pauses, is tried, and burns nobody's patience."""

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from service.delivery import (
    PROVIDER_LANE,
    AccountFailure,
    Outcome,
    Request,
    SendingBlocked,
    Settled,
    Standing,
    TransientFailure,
    UnconfirmedFailure,
)
from service.lanes import BLOCKS, probe_delay
from tests.fakes import ACCOUNT, a_transaction
from tests.workbench import ID, RULES, Bench

WRONG = AccountFailure("the mail relay did not let us sign in: 535")
LATER = TransientFailure("451 4.7.1 greylisted")
LOST = UnconfirmedFailure("the mail relay's answer to the message was lost")
POLICY = SendingBlocked("the mail relay refused the message: 550 5.7.1 blocked")


async def several(bench: Bench, count: int) -> list[str]:
    ids = [f"{ACCOUNT}.n{number}" for number in range(count)]
    for id_ in ids:
        bench.payments.add(a_transaction(id_))
        await bench.arrive(id_)
    return ids


async def paused(bench: Bench) -> list[str]:
    return [pause.lane for pause in await bench.store.pauses(ACCOUNT)]


async def test_an_account_at_fault_pauses_its_channel_for_all(bench: Bench) -> None:
    bench.channel.plan = [WRONG] * 9
    await several(bench, 9)
    with capture_logs() as logs:
        await bench.worker().drain()
    assert await paused(bench) == ["email"]
    assert [log["lane"] for log in logs if log["event"] == "alarm.lane_paused"] == ["email"]
    tried = 9 - len(bench.channel.plan)
    assert tried <= 4, "those in hand when it began, and no others"
    assert bench.channel.sent == []


async def test_a_pause_outlasts_the_process_that_made_it(bench: Bench) -> None:
    bench.channel.plan = [WRONG]
    await bench.arrive()
    await bench.work()
    await several(bench, 3)
    await bench.work(after=30)  # another worker: each `work` makes its own
    assert bench.channel.sent == []


async def test_the_channels_own_check_is_tried_before_a_delivery_is(bench: Bench) -> None:
    bench.channel.plan = [WRONG]
    await bench.arrive()
    await bench.work()
    bench.channel.checks_plan = [WRONG, WRONG]
    attempts = (await bench.delivery()).attempt
    await bench.work(after=61)
    await bench.work(after=61)
    assert bench.channel.checks_plan == []
    assert (await bench.delivery()).attempt == attempts
    assert await paused(bench) == ["email"]
    delivery = await bench.work(after=61)
    assert await paused(bench) == []
    assert delivery.outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_one_delivery_is_the_probe_and_the_others_wait_for_it(bench: Bench) -> None:
    bench.channel.plan = [WRONG]
    ids = await several(bench, 1)
    await bench.worker().drain()
    ids += await several(bench, 6)
    await bench.worker().drain()
    bench.channel.plan = [WRONG] * 9
    await bench.work_all(after=61)
    assert len(bench.channel.plan) == 8, "one was tried"
    bench.channel.plan = []
    await bench.work_all(after=61)
    assert {(await bench.delivery(id_)).outcome for id_ in set(ids)} == {Outcome.COMPLETED}


async def test_a_pause_that_nobody_waits_for_ends_with_the_check(bench: Bench) -> None:
    await bench.store.pause(ACCOUNT, "email", "535", by=None, probe_in=60)
    with capture_logs() as logs:
        await bench.work_all(after=61)
    assert await paused(bench) == []
    assert [log["lane"] for log in logs if log["event"] == "service.lane_resumed"] == ["email"]


async def test_patience_does_not_run_out_in_a_pause(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 try again later"), WRONG]
    await bench.arrive()
    await bench.work()
    await bench.work(after=120)
    bench.channel.checks_plan = [WRONG] * 100
    for _ in range(20):
        await bench.work(after=86400)
    assert (await bench.delivery()).outcome is Outcome.OPEN
    bench.channel.checks_plan = []
    assert (await bench.work(after=86400)).outcome is Outcome.COMPLETED


async def test_what_a_person_holds_is_not_tried_until_resumed(bench: Bench) -> None:
    await bench.store.pause(ACCOUNT, "email", "new relay tonight", by="kari", probe_in=None)
    await bench.arrive()
    assert (await bench.work(after=86400)).outcome is Outcome.OPEN
    assert bench.channel.sent == []
    assert bench.channel.checks == 0
    await bench.store.resume(ACCOUNT, "email")
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_a_pause_of_a_channel_that_only_other_processes_have_comes_and_goes(bench: Bench) -> None:
    worker = bench.worker()
    await bench.store.pause(ACCOUNT, "post", "a new printer", by="kari", probe_in=None)
    await worker.drain()
    await bench.store.resume(ACCOUNT, "post")
    await bench.arrive()
    await worker.drain()
    assert (await bench.delivery()).outcome is Outcome.COMPLETED


async def test_the_providers_account_pauses_everything(bench: Bench) -> None:
    bench.payments.plan["read"] = [AccountFailure("Dintero answered 401 to a new token")]
    ids = await several(bench, 9)
    await bench.worker().drain()
    assert await paused(bench) == [PROVIDER_LANE]
    reads = len(bench.payments.reads)
    await bench.work_all(after=30)
    assert len(bench.payments.reads) == reads
    await bench.work_all(after=31)
    assert await paused(bench) == []
    await bench.work_all(after=61)
    assert {(await bench.delivery(id_)).outcome for id_ in ids} == {Outcome.COMPLETED}


async def test_a_delay_that_the_provider_names_is_the_whole_accounts(bench: Bench) -> None:
    bench.payments.plan["read"] = [AccountFailure("Dintero answered 429", retry_after=500)]
    await bench.arrive()
    await bench.work()
    await several(bench, 3)
    reads = len(bench.payments.reads)
    await bench.work_all(after=400)
    assert len(bench.payments.reads) == reads
    await bench.work_all(after=101)
    assert len(bench.payments.reads) > reads


async def test_a_single_refusal_by_policy_is_this_messages_and_repeated_ones_are_ours(bench: Bench) -> None:
    bench.channel.plan = [POLICY]
    await bench.arrive()
    delivery = await bench.work()
    assert await paused(bench) == []
    assert delivery.reason == POLICY.reason
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    bench.channel.plan = [POLICY] * BLOCKS
    await several(bench, BLOCKS)
    await bench.worker().drain()
    assert await paused(bench) == ["email"]


async def test_an_accepted_message_between_them_begins_the_count_anew(bench: Bench) -> None:
    worker = bench.worker(concurrency=1)
    bench.channel.plan = [POLICY] * (BLOCKS - 1)
    await several(bench, BLOCKS)
    await worker.drain()
    assert len(bench.channel.sent) == 1
    bench.channel.plan = [POLICY] * (BLOCKS - 1)
    bench.clock.advance(61)
    await worker.drain()
    assert await paused(bench) == []


async def test_one_mail_that_is_refused_again_and_again_does_not_stop_the_others(bench: Bench) -> None:
    bench.channel.plan = [POLICY] * 9
    await bench.arrive()
    worker = bench.worker()
    for _ in range(BLOCKS + 2):
        await worker.drain()
        bench.clock.advance(301)
    assert len(bench.channel.plan) < 9 - BLOCKS
    assert await paused(bench) == []


async def test_what_was_refused_before_a_pause_is_not_counted_after_it(bench: Bench) -> None:
    bench.channel.plan = [POLICY] * BLOCKS
    worker = bench.worker()
    await several(bench, BLOCKS)
    await worker.drain()
    assert await paused(bench) == ["email"]
    bench.clock.advance(61)
    await worker.drain()
    assert await paused(bench) == []
    bench.channel.plan = [POLICY]
    await bench.arrive()
    await worker.drain()
    assert await paused(bench) == []


async def test_what_was_begun_on_a_paused_channel_goes_no_further_than_to_its_lane(bench: Bench) -> None:
    await bench.store.pause(ACCOUNT, "email", "535", by="kari", probe_in=None)
    await bench.arrive()
    delivery = await bench.work()
    assert (delivery.lane, delivery.attempt) == ("email", 0)
    assert bench.payments.documents == [], "no document is fetched for what cannot be sent"


@pytest.mark.parametrize("answer", [LATER, WRONG], ids=["greylisted", "still wrong"])
async def test_the_probes_own_delivery_loses_no_patience_to_the_pause(bench: Bench, answer: Exception) -> None:
    bench.channel.plan = [LATER]
    await bench.arrive()
    await bench.work()
    await bench.store.pause(ACCOUNT, "email", "535", by=None, probe_in=60)
    bench.channel.checks_plan = [WRONG] * 30
    for _ in range(30):
        await bench.work(after=3600)
    bench.channel.plan = [answer]
    delivery = await bench.work(after=3600)
    assert delivery.outcome is Outcome.OPEN
    assert delivery.patience_used < 600


async def test_stated_while_the_channel_is_paused_it_is_captured_at_once(bench: Bench) -> None:
    bench.channel.plan = [WRONG]
    await bench.arrive()
    await bench.work()
    await bench.store.pause(ACCOUNT, "email", "the relay is gone for a week", by="kari", probe_in=None)
    await bench.store.resolve(ID, Request(by="kari", at=bench.clock.now(), reason="by post"), delivered=True)
    assert (await bench.work(after=3600)).outcome is Outcome.COMPLETED


async def test_a_late_answer_is_captured_while_the_channel_is_paused(bench: Bench) -> None:
    bench.channel.plan = [LOST]
    await bench.arrive()
    await bench.work()
    await bench.store.pause(ACCOUNT, "email", "the relay is gone for a week", by="kari", probe_in=None)
    (send,) = await bench.store.sends(ID)
    await bench.store.settle_send(replace(send, outcome=Settled.ACCEPTED, answer="250"), ())
    assert (await bench.work(after=3600)).outcome is Outcome.COMPLETED


async def test_a_void_is_seen_while_the_channel_is_paused(bench: Bench) -> None:
    bench.channel.plan = [LOST]
    await bench.arrive()
    await bench.work()
    await bench.store.pause(ACCOUNT, "email", "the relay is gone for a week", by="kari", probe_in=None)
    bench.payments.change(ID, standing=Standing.VOIDED)
    await bench.arrive(event=True)
    assert (await bench.work(after=3600)).outcome is Outcome.CANCELLED


async def test_a_check_that_hangs_keeps_no_other_lane_from_being_tried(bench: Bench) -> None:
    for lane in ("email", PROVIDER_LANE):
        await bench.store.pause(ACCOUNT, lane, "535", by=None, probe_in=1)
    bench.clock.advance(2)
    checked = asyncio.Event()

    async def hangs() -> str:
        await asyncio.Event().wait()
        return ""

    async def answers() -> str:
        checked.set()
        return ""

    bench.channel.check = hangs  # type: ignore[method-assign]
    bench.payments.check = answers  # type: ignore[method-assign]
    worker = bench.worker()
    running = asyncio.create_task(worker.run())
    await asyncio.wait_for(checked.wait(), 10)
    worker.stop()
    await asyncio.wait_for(running, 5)


async def test_a_probe_ends_with_the_worker(bench: Bench) -> None:
    await bench.store.pause(ACCOUNT, "email", "535", by=None, probe_in=1)
    bench.clock.advance(2)
    looking = asyncio.Event()

    async def for_ever() -> str:
        looking.set()
        await asyncio.Event().wait()
        return ""

    bench.channel.check = for_ever  # type: ignore[method-assign]
    worker = bench.worker()
    running = asyncio.create_task(worker.run())
    await looking.wait()
    worker.stop()
    await asyncio.wait_for(running, 5)
    assert await paused(bench) == ["email"]


async def test_a_send_refused_for_our_account_is_in_the_record(bench: Bench) -> None:
    bench.channel.plan = [WRONG]
    await bench.arrive()
    await bench.work()
    (send,) = await bench.store.sends(ID)
    assert (send.outcome, send.answer) == (Settled.REFUSED, WRONG.reason)


def test_probes_come_along_the_schedule_a_minute_apart_at_most() -> None:
    rules = replace(RULES, retry_delays=(5.0, 30.0, 3600.0))
    assert [probe_delay(rules, failed, None) for failed in range(5)] == [5, 30, 60, 60, 60]
    assert probe_delay(rules, 0, 120) == 120
    assert probe_delay(rules, 0, 10**9) == 86400
