"""Grouped invoices when words change between two steps, the record is young or lost, and purchases differ."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from service.capture import capture_reference
from service.decide import Rules
from service.delivery import (
    GroupAddresses,
    Outcome,
    Party,
    Standing,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.fakes import ACCOUNT
from tests.test_grouped import (
    BEFORE,
    DAY,
    HOUR,
    KRAVIA,
    NUMBER,
    a_purchase,
    at,
    bill,
    billed_at,
    buy,
    found,
    middle_of_next_month,
)
from tests.workbench import RULES, Bench

LATE = date(2099, 1, 1)


async def settle(bench: Bench, turns: int = 14, after: float = 300) -> None:
    for _ in range(turns):
        await bench.work_all(after=after)


async def billed(bench: Bench, *names: str) -> None:
    await at(bench, billed_at(bench))
    bill(bench, *names, due_date=LATE)
    await bench.work_all(after=12 * HOUR + 700)


async def bought(bench: Bench, *names: str) -> None:
    await at(bench, middle_of_next_month(bench))
    await buy(bench, *names)


def without_address(bench: Bench) -> Party:
    billing = a_purchase("x", bench.clock.now()).billing
    assert billing is not None
    return replace(billing, email=None)


async def test_what_was_delivered_is_captured_whoever_is_said_to_deliver_later(bench: Bench) -> None:
    await bought(bench, "p1", "p2")
    bench.payments.plan["capture"] = [TransientFailure("busy")] * 6
    await billed(bench, "p1", "p2")
    await settle(bench, 1, 60)
    for name in ("p1", "p2"):
        bench.payments.change(f"{ACCOUNT}.{name}", findings=KRAVIA)
    await settle(bench, 30, HOUR)
    assert {(await found(bench, name)).outcome for name in ("p1", "p2")} == {Outcome.COMPLETED}


@pytest.mark.parametrize("rules", [RULES, BEFORE], ids=["after", "before"])
async def test_of_an_invoice_older_than_the_record_nothing_is_sent_or_captured(bench: Bench, rules: Rules) -> None:
    bench.rules = rules
    bench.born_at = bench.clock.now()
    old = bench.born_at - timedelta(days=20)
    for name in ("p1", "p2"):
        bench.payments.add(a_purchase(name, old - timedelta(days=30)))
    bill(bench, "p1", "p2", invoice_date=old.date(), due_date=LATE)
    for name in ("p1", "p2"):
        await bench.arrive(f"{ACCOUNT}.{name}")
    await settle(bench)
    assert (await found(bench, f"invoice.{NUMBER}")).is_held
    assert (bench.channel.sent, bench.payments.captures) == ([], [])


async def test_one_capture_of_ours_that_the_record_lost_tells_that_the_invoice_was_sent(bench: Bench) -> None:
    await bought(bench, "p1")
    bench.clock.advance(60)
    await buy(bench, "p2")
    await at(bench, billed_at(bench))
    bill(bench, "p1", "p2", due_date=LATE)
    bench.payments.begin(f"{ACCOUNT}.p1", capture_reference(f"{ACCOUNT}.p1"))
    await bench.work_all(after=12 * HOUR + 700)
    await settle(bench)
    assert not bench.channel.sent
    assert (await found(bench, "p2")).outcome is Outcome.COMPLETED


async def test_before_delivery_a_purchase_is_tried_with_the_address_that_its_invoice_goes_to(bench: Bench) -> None:
    listed = GroupAddresses(by_organization=(("NO923456789", "regnskap@nordmann.no"),))
    bench.rules = replace(BEFORE, group_addresses=listed)
    await bought(bench, "p1")
    await buy(bench, "p2", billing=without_address(bench))
    await billed(bench, "p1", "p2")
    await settle(bench)
    assert [sent.recipient.address for sent in bench.channel.sent] == ["regnskap@nordmann.no"]
    assert len(bench.payments.captures) == 2


async def test_a_purchase_without_an_address_does_not_keep_the_others_from_theirs(bench: Bench) -> None:
    await bought(bench, "p1")
    bench.clock.advance(60)
    await buy(bench, "p2", billing=without_address(bench))
    await billed(bench, "p1", "p2")
    await settle(bench)
    assert [sent.recipient.address for sent in bench.channel.sent] == ["faktura@nordmann.no"]


async def test_a_void_while_the_invoice_is_in_doubt_says_that_the_customer_may_have_it(bench: Bench) -> None:
    bench.rules = replace(RULES, unconfirmed_retries=0)
    await bought(bench, "p1", "p2")
    bench.channel.plan = [UnconfirmedFailure("the connection broke")]
    await billed(bench, "p1", "p2")
    await settle(bench, 4)
    for name in ("p1", "p2"):
        bench.payments.change(f"{ACCOUNT}.{name}", standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
        await bench.arrive(f"{ACCOUNT}.{name}", event=True)
    await settle(bench, 4)
    assert "after the customer had the invoice" in ((await found(bench, "p1")).reason or "")


async def test_the_others_are_woken_once_and_not_by_each(bench: Bench) -> None:
    names = [f"p{number}" for number in range(12)]
    await bought(bench, *names)
    await at(bench, billed_at(bench))
    bill(bench, *names, due_date=LATE)
    reads = len(bench.payments.reads)
    await bench.work_all(after=DAY)
    await settle(bench, 4)
    assert len(bench.payments.reads) - reads < 8 * len(names)
    assert len(bench.channel.sent) == 1
