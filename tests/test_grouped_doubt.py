"""Grouped invoices when words change between two steps, the record is young or lost, and purchases differ."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta

import pytest
from structlog.testing import capture_logs

from service.capture import capture_reference
from service.decide import Rules
from service.delivery import (
    RECONCILE,
    Arrival,
    Condition,
    Fate,
    GroupAddresses,
    Members,
    Outcome,
    Party,
    Reported,
    Settled,
    Standing,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.fakes import ACCOUNT
from tests.store_values import request
from tests.test_fallback import report, with_sms
from tests.test_grouped import (
    BEFORE,
    DAY,
    HOUR,
    INVOICE,
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


# --- given up, and billed after all ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [RULES, BEFORE], ids=["after", "before"])
async def test_what_was_given_up_is_billed_after_all_when_another_purchase_shows_the_number(
    bench: Bench, rules: Rules
) -> None:
    bench.rules = rules
    names = ("p1", "p2", "p3")
    await bought(bench, *names)
    await at(bench, billed_at(bench))
    await settle(bench, 40, DAY / 2)
    assert [(one.outcome, one.closed_waiting) for one in [await found(bench, name) for name in names]] == [
        (Outcome.FAILED, True)
    ] * 3
    bill(bench, *names, due_date=LATE)
    await bench.arrive(f"{ACCOUNT}.p2")  # nobody calls about the others
    await settle(bench, 4, HOUR)
    assert [sent.recipient.address for sent in bench.channel.sent] == ["faktura@nordmann.no"]
    assert sorted(request.transaction_id for request in bench.payments.captures) == [f"{ACCOUNT}.{n}" for n in names]
    assert {(await found(bench, name)).outcome for name in (*names, f"invoice.{NUMBER}")} == {Outcome.COMPLETED}
    assert (await found(bench, f"invoice.{NUMBER}")).amount == 3 * 50000


async def test_what_was_given_up_and_is_not_on_the_invoice_that_came_stays_given_up(bench: Bench) -> None:
    await bought(bench, "p1", "p2")
    await at(bench, billed_at(bench))
    await settle(bench, 40, DAY / 2)
    bill(bench, "p1", due_date=LATE)
    await bench.arrive(f"{ACCOUNT}.p1")
    await settle(bench, 4, HOUR)
    left = await found(bench, "p2")
    assert (left.outcome, left.closed_waiting) == (Outcome.FAILED, True)
    assert [request.transaction_id for request in bench.payments.captures] == [f"{ACCOUNT}.p1"]
    bill(bench, "p2", due_date=LATE)  # and it can still join: its invoice is not sent again
    await bench.arrive(f"{ACCOUNT}.p2")
    await settle(bench, 4, HOUR)
    assert (await found(bench, "p2")).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


# --- the purchase that carries the invoice goes away -----------------------------------------------------------------


async def two_with_addresses_of_their_own(bench: Bench) -> None:
    """Have an invoice of two purchases refused for now, so that it is still to be sent; the newer one carries it."""
    await bought(bench, "p1")
    bench.clock.advance(60)
    billing = a_purchase("x", bench.clock.now()).billing
    assert billing is not None
    await buy(bench, "p2", billing=replace(billing, email="ny@nordmann.no"))
    bench.channel.plan = [TransientFailure("451 later")]
    await billed(bench, "p1", "p2")
    await settle(bench, 1, 5)
    (tried,) = await bench.store.sends(INVOICE)
    (one, two) = await bench.store.members(Members())
    assert tried.outcome is Settled.REFUSED
    assert tried.recipient_key == two.purchase.recipient_key != one.purchase.recipient_key


async def test_the_next_purchase_carries_the_invoice_when_the_newest_is_voided(bench: Bench) -> None:
    await two_with_addresses_of_their_own(bench)
    bench.payments.change(f"{ACCOUNT}.p2", standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
    await bench.arrive(f"{ACCOUNT}.p2", event=True)
    await settle(bench)
    assert [sent.recipient.address for sent in bench.channel.sent] == ["faktura@nordmann.no"]
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, invoice.amount) == (Outcome.COMPLETED, 50000)
    assert (await found(bench, "p1")).outcome is Outcome.COMPLETED
    assert (await found(bench, "p2")).outcome is Outcome.CANCELLED
    assert [request.transaction_id for request in bench.payments.captures] == [f"{ACCOUNT}.p1"]


async def test_the_next_purchase_carries_the_invoice_when_the_newest_has_failed(bench: Bench) -> None:
    await two_with_addresses_of_their_own(bench)
    bench.payments.change(f"{ACCOUNT}.p2", amount=None)
    await bench.arrive(f"{ACCOUNT}.p2", event=True)
    await settle(bench, 1, 5)
    assert (await found(bench, "p2")).outcome is Outcome.FAILED
    await settle(bench)
    assert [sent.recipient.address for sent in bench.channel.sent] == ["faktura@nordmann.no"]
    assert (await found(bench, "p1")).outcome is Outcome.COMPLETED
    assert [request.transaction_id for request in bench.payments.captures] == [f"{ACCOUNT}.p1"]
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, invoice.amount) == (Outcome.COMPLETED, 2 * 50000)  # what failed is billed all the same


async def test_nothing_is_sent_when_every_purchase_is_voided_before(bench: Bench) -> None:
    await two_with_addresses_of_their_own(bench)
    for name in ("p1", "p2"):
        bench.payments.change(f"{ACCOUNT}.{name}", standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
        await bench.arrive(f"{ACCOUNT}.{name}", event=True)
    await settle(bench)
    assert (bench.channel.sent, bench.payments.captures) == ([], [])
    assert {(await found(bench, name)).outcome for name in ("p1", "p2", f"invoice.{NUMBER}")} == {Outcome.CANCELLED}


# --- voided when the customer has the invoice ------------------------------------------------------------------------


async def void(bench: Bench, name: str) -> list[str]:
    """Void a purchase, have it looked at, and return the alarms."""
    bench.payments.change(
        f"{ACCOUNT}.{name}",
        standing=Standing.VOIDED,
        status="AUTHORIZATION_VOIDED",
        voided_at=bench.clock.now(),
    )
    with capture_logs() as lines:
        await bench.arrive(f"{ACCOUNT}.{name}", event=True)
        await settle(bench, 6)
    return [str(line["event"]) for line in lines if str(line["event"]).startswith("alarm.")]


@pytest.mark.parametrize("rules", [RULES, BEFORE], ids=["after", "before"])
async def test_a_void_of_what_is_captured_sends_nothing_again_and_is_told(bench: Bench, rules: Rules) -> None:
    bench.rules = rules
    await bought(bench, "p1", "p2")
    await billed(bench, "p1", "p2")
    await settle(bench, 6, HOUR)
    assert await void(bench, "p2") == ["alarm.voided_after_delivery"]
    purchase = await found(bench, "p2")
    assert purchase.outcome is Outcome.COMPLETED
    assert purchase.voided_at is not None
    assert any("void" in (entry.detail or "") for entry in await bench.store.history(purchase.id))
    assert [send.outcome for send in await bench.store.sends(INVOICE)] == [Settled.ACCEPTED]
    assert len(bench.channel.sent) == 1
    assert len(bench.payments.captures) == 2
    (concern,) = await bench.store.concerns(ACCOUNT)
    assert (concern.condition, [case.subject for case in concern.cases]) == (Condition.VOIDED, [purchase.id])
    assert [member.counts for member in await bench.store.members(Members())] == [True, False]
    assert (await found(bench, f"invoice.{NUMBER}")).outcome is Outcome.COMPLETED
    assert await void(bench, "p2") == []  # told once


async def test_a_void_of_what_is_delivered_and_not_captured_is_not_captured_and_is_told(bench: Bench) -> None:
    await bought(bench, "p1", "p2")
    bench.payments.plan["capture"] = [TransientFailure("busy")] * 2
    await billed(bench, "p1", "p2")
    await settle(bench, 1, 20)
    assert len(bench.channel.sent) == 1
    bench.payments.plan.clear()
    asked = len(bench.payments.captures)
    assert "alarm.voided_after_delivery" in await void(bench, "p2")
    await settle(bench, 6, HOUR)
    purchase = await found(bench, "p2")
    assert purchase.outcome is Outcome.CANCELLED
    assert "after the customer had the invoice" in (purchase.reason or "")
    assert "delivered" in purchase.progress
    assert [request.transaction_id for request in bench.payments.captures[asked:]] == [f"{ACCOUNT}.p1"]
    assert len(bench.channel.sent) == 1
    assert (await found(bench, f"invoice.{NUMBER}")).outcome is Outcome.COMPLETED
    (concern,) = await bench.store.concerns(ACCOUNT)
    assert concern.condition is Condition.VOIDED


# --- the sum that the customer is told -------------------------------------------------------------------------------


async def four_billed(bench: Bench) -> None:
    """Four purchases were bought and recorded; their invoice is there, and nobody has seen it yet."""
    await bought(bench, "p1", "p2", "p3", "p4")
    await at(bench, billed_at(bench))
    await bench.work_all(after=4 * DAY)
    bill(bench, "p1", "p2", "p3", "p4", due_date=LATE)


async def the_sum(bench: Bench) -> int | None:
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, len(bench.channel.sent)) == (Outcome.COMPLETED, 1)
    return invoice.amount


@pytest.mark.parametrize("shown_by", [("p1",), ("p1", "p2")])
async def test_whoever_was_to_wake_the_others_dies_and_the_sum_is_right(
    bench: Bench, shown_by: tuple[str, ...]
) -> None:
    await four_billed(bench)
    for name in shown_by:  # recorded as the process would have, which died before it woke anybody
        (member,) = await bench.store.members(Members(transaction_id=f"{ACCOUNT}.{name}"))
        await bench.arrive(f"{ACCOUNT}.{name}")
        (claim,) = await bench.store.claim(ACCOUNT, "provider", 1, lease=60, suspects=False)
        billed_with = replace(member.purchase, invoice_id=INVOICE, invoice_number=NUMBER)
        await bench.store.record_purchase(claim, billed_with)
    bench.clock.advance(61)
    await settle(bench, 10, 60)
    assert await the_sum(bench) == 4 * 50000


async def test_no_sum_is_told_before_every_purchase_is_read(bench: Bench) -> None:
    await four_billed(bench)
    away: list[Exception | Callable[[], object]] = [TransientFailure("500") for _ in range(40)]
    bench.payments.plan[f"read {ACCOUNT}.p3"] = away
    await bench.arrive(f"{ACCOUNT}.p1")
    with capture_logs() as logs:
        await settle(bench, 30, 60)
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, bench.channel.sent) == (Outcome.OPEN, [])
    assert "1 of the purchases of its group cannot be read" in (invoice.reason or "")
    assert "alarm.group_differs" in {log["event"] for log in logs}
    away.clear()
    await settle(bench, 30, 300)
    assert await the_sum(bench) == 4 * 50000


async def test_what_was_called_about_and_never_read_may_be_a_purchase_of_it(bench: Bench) -> None:
    await bought(bench, "p1")
    bench.payments.plan[f"read {ACCOUNT}.p2"] = [TransientFailure("500") for _ in range(3)]
    await buy(bench, "p2")
    bill(bench, "p1", "p2", due_date=LATE)
    await bench.arrive(f"{ACCOUNT}.p1")
    await settle(bench, 2, 30)
    assert bench.channel.sent == []
    await settle(bench, 14, 60)
    assert await the_sum(bench) == 2 * 50000


async def test_one_that_was_skipped_earlier_and_is_collected_by_now_is_held(bench: Bench) -> None:
    """Adopted after an upgrade: who delivered it, and captured it by hand, did so without us."""
    await bought(bench)
    bench.payments.add(a_purchase("p1", bench.clock.now()))
    await at(bench, billed_at(bench))
    bill(bench, "p1", due_date=LATE)
    bench.payments.begin(f"{ACCOUNT}.p1", "by hand")
    arrival = Arrival(transaction_id=f"{ACCOUNT}.p1", account_id=ACCOUNT, at=bench.clock.now(), source=RECONCILE)
    await bench.store.receive(arrival)
    await settle(bench)
    assert (bench.channel.sent, bench.payments.captures) == ([], [])
    assert (await found(bench, f"invoice.{NUMBER}")).is_held


@pytest.mark.parametrize("collected", [True, False])
async def test_an_invoice_that_came_back_goes_by_the_next_channel(bench: Bench, *, collected: bool) -> None:
    """It bounced, whether or not its purchases are captured by then; those that are not wait for the next channel."""
    sms = with_sms(bench, capture_delay=0.0 if collected else 2 * HOUR)
    await bought(bench, "p1", "p2")
    await billed(bench, "p1", "p2")
    await settle(bench, 6, 10)
    assert (len(bench.channel.sent), len(bench.payments.captures)) == (1, 2 * collected)
    await bench.store.pause(ACCOUNT, "sms-twilio", "held", by="kari", probe_in=None)
    assert await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED)) is Reported.BOUNCED
    await settle(bench, 9, HOUR / 2)
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, len(bench.payments.captures)) == (Outcome.OPEN, 2 * collected)
    await bench.store.resume(ACCOUNT, "sms-twilio")
    await settle(bench, 9, HOUR / 2)
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, len(sms.sent)) == (Outcome.COMPLETED, 1)
    assert invoice.reason == "delivered by sms-twilio, after email had not worked"
    assert len(bench.payments.captures) == 2


async def test_an_invoice_that_came_back_for_good_is_failed_and_nothing_is_captured(bench: Bench) -> None:
    bench.rules = replace(RULES, capture_delay=2 * HOUR)
    await bought(bench, "p1", "p2")
    await billed(bench, "p1", "p2")
    await settle(bench, 6, 10)
    await bench.store.report(ACCOUNT, report(bench, "email-1", Fate.FAILED))
    await settle(bench, 6, HOUR)
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, invoice.reason) == (Outcome.FAILED, "not delivered by email: failed")
    assert not bench.payments.captures
    await bench.store.resolve(INVOICE, request(), delivered=True)
    await settle(bench, 3, HOUR)
    assert len(bench.payments.captures) == 2
