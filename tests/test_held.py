"""What is kept from being mailed: because of the record's age, a due date too near, or an invoice that changed."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from structlog.testing import capture_logs

from service.capture import capture_reference
from service.decide import by_due_date
from service.delivery import (
    Arrival,
    CaptureOrder,
    Collection,
    Delivery,
    Outcome,
    Request,
    Step,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.fakes import ACCOUNT, a_delivery, a_transaction
from tests.workbench import ID, RULES, Bench

DAY = timedelta(days=1)
KARI = Request(by="kari", at=datetime(2026, 11, 23, tzinfo=UTC), reason="looked")
BEFORE = replace(RULES, order=CaptureOrder.BEFORE_DELIVERY)


def today(bench: Bench) -> date:
    """Return the day it is where the merchant is."""
    return bench.clock.now().astimezone(RULES.timezone).date()


def is_held(delivery: Delivery) -> bool:
    return delivery.outcome is Outcome.FAILED and (delivery.reason or "").startswith("held: ")


async def reconciled(bench: Bench) -> None:
    await bench.store.receive(Arrival(transaction_id=ID, account_id=ACCOUNT, at=bench.clock.now(), source="reconcile"))


async def test_what_is_older_than_the_record_is_held_and_said_once(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - 2 * DAY)
    await bench.arrive()
    with capture_logs() as logs:
        assert is_held(await bench.work())
    assert bench.channel.sent == []
    assert [log["event"] for log in logs if log["event"].startswith("alarm.")] == ["alarm.held"]
    assert is_held(await bench.work(after=10 * 86400))


async def test_what_came_in_the_last_day_before_the_record_is_delivered(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - timedelta(hours=23))
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_a_held_one_goes_out_when_a_person_releases_it_and_not_by_a_retry(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - 2 * DAY)
    await bench.arrive()
    await bench.work()
    await bench.store.retry(ID, KARI)
    assert is_held(await bench.work())
    await bench.store.release(ID, KARI)
    bench.channel.plan = [TransientFailure("451 try again later")]
    await bench.work()
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_a_resend_of_a_held_one_is_a_persons_word(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - 2 * DAY)
    await bench.arrive()
    await bench.work()
    await bench.store.resend(ID, KARI)
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_collected_and_found_by_reconciliation_is_held_until_its_own_callback_comes(bench: Bench) -> None:
    bench.payments.begin(ID, "somebody else's")
    await reconciled(bench)
    assert is_held(await bench.work())
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_collected_before_the_record_began_is_held_even_with_a_callback(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - timedelta(hours=2))
    bench.payments.begin(ID, "somebody else's")
    await bench.arrive()
    assert is_held(await bench.work())


async def test_what_we_have_begun_is_not_held_when_somebody_collects_it_meanwhile(bench: Bench) -> None:
    bench.channel.plan = [TransientFailure("451 try again later")]
    await reconciled(bench)
    await bench.work()
    bench.payments.begin(ID, "somebody else's")
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


@pytest.mark.parametrize("by", ["callback", "reconcile"])
async def test_our_own_capture_that_the_record_lost_is_adopted_as_completed(bench: Bench, by: str) -> None:
    bench.payments.begin(ID, capture_reference(ID))
    await (bench.arrive() if by == "callback" else reconciled(bench))
    delivery = await bench.work()
    assert delivery.outcome is Outcome.COMPLETED
    assert delivery.progress == ("delivered", "captured")
    assert "own capture" in (delivery.reason or "")
    assert bench.channel.sent == []
    assert bench.payments.captures == []


async def test_a_lost_acceptance_shows_by_our_own_capture_too(bench: Bench) -> None:
    """Yesterday's backup has a refused send; the delivery was made, and captured, after it was taken."""
    bench.channel.plan = [TransientFailure("451 try again later")]
    await bench.arrive()
    await bench.work()
    bench.payments.begin(ID, capture_reference(ID))
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert bench.channel.sent == []


async def test_with_the_capture_first_our_own_lost_one_proves_no_delivery(bench: Bench) -> None:
    bench.rules = BEFORE
    bench.payments.begin(ID, capture_reference(ID))
    await bench.arrive()
    assert is_held(await bench.work())
    assert bench.channel.sent == []


async def test_with_the_capture_first_our_own_lost_one_goes_out_when_a_person_says_so(bench: Bench) -> None:
    bench.rules = BEFORE
    bench.payments.begin(ID, capture_reference(ID))
    await bench.arrive()
    await bench.work()
    await bench.store.release(ID, KARI)
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1
    assert bench.payments.captures == []


async def test_a_failed_capture_of_ours_that_the_record_lost_shows_a_delivery_too(bench: Bench) -> None:
    bench.payments.begin(ID, capture_reference(ID), success=False)
    await bench.arrive()
    assert is_held(await bench.work())
    await bench.store.release(ID, KARI)
    assert (await bench.work()).outcome is Outcome.COMPLETED


async def test_released_in_the_backup_and_delivered_since_it_is_adopted_all_the_same(bench: Bench) -> None:
    await bench.arrive()
    await bench.store.release(ID, KARI)
    bench.payments.begin(ID, capture_reference(ID))
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert bench.channel.sent == []


async def test_what_somebody_stopped_meanwhile_is_not_released(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - 2 * DAY)
    await bench.arrive()
    await bench.work()
    await bench.store.cancel(ID, KARI)
    assert (await bench.store.release(ID, KARI)).outcome is Outcome.CANCELLED
    await bench.work()
    assert bench.channel.sent == []


async def test_our_own_capture_in_the_record_holds_nothing(bench: Bench) -> None:
    bench.rules = BEFORE
    bench.channel.plan = [TransientFailure("451 try again later")]
    await bench.arrive()
    assert (await bench.work()).outcome is Outcome.OPEN
    assert (await bench.work(after=61)).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_an_adopted_one_can_be_sent_again_on_purpose(bench: Bench) -> None:
    bench.payments.begin(ID, capture_reference(ID))
    await bench.arrive()
    await bench.work()
    await bench.store.resend(ID, KARI)
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_paid_already_is_skipped_and_not_held(bench: Bench) -> None:
    paid = Collection(begun=True, begun_at=bench.clock.now(), paid=True)
    bench.payments.change(ID, collection=paid)
    await reconciled(bench)
    assert (await bench.work()).reason == "already paid"


# --- the due date ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "said"),
    [(3, None), (2, "due in 2 days"), (1, "due in 1 day"), (0, "due today"), (-1, "due 1 day ago"), (-9, "9 days ago")],
)
def test_an_invoice_needs_some_days_before_it_is_due(days: int, said: str | None) -> None:
    now = datetime(2026, 11, 23, 23, 30, tzinfo=UTC)  # the 24th in Oslo
    due = date(2026, 11, 24) + timedelta(days=days)
    close = by_due_date(a_delivery(), a_transaction(due_date=due), RULES, now)
    assert (close is None) == (said is None)
    assert close is None or (close.outcome is Outcome.FAILED and said is not None and said in (close.reason or ""))
    assert by_due_date(a_delivery(even_late=True), a_transaction(due_date=due), RULES, now) is None
    elsewhere = replace(RULES, timezone=ZoneInfo("America/New_York"))  # still the 23rd
    assert (by_due_date(a_delivery(), a_transaction(due_date=due), elsewhere, now) is None) == (days >= 2)


@pytest.mark.parametrize("rules", [RULES, BEFORE], ids=["after_delivery", "before_delivery"])
async def test_an_invoice_about_to_be_due_stops_before_any_effect(bench: Bench, rules: object) -> None:
    assert rules in (RULES, BEFORE)
    bench.rules = RULES if rules is RULES else BEFORE
    bench.payments.change(ID, due_date=today(bench) + DAY)
    await bench.arrive()
    delivery = await bench.work()
    assert delivery.outcome is Outcome.FAILED
    assert (delivery.reason or "").startswith("due in 1 day")
    assert (bench.channel.sent, bench.payments.captures) == ([], [])
    await bench.store.resend(ID, KARI)
    assert (await bench.work()).outcome is Outcome.FAILED, "a resend alone does not override it"
    await bench.store.resend(ID, replace(KARI, even_late=True))
    assert (await bench.work()).outcome is Outcome.COMPLETED
    assert len(bench.channel.sent) == 1


async def test_too_late_for_a_repeat_it_says_that_the_customer_may_have_it(bench: Bench) -> None:
    bench.channel.plan = [UnconfirmedFailure("lost")]
    await bench.arrive()
    await bench.work()
    bench.payments.change(ID, due_date=today(bench))
    with capture_logs() as logs:
        delivery = await bench.work(after=901)
    assert delivery.outcome is Outcome.FAILED
    assert "not known whether the customer got it" in (delivery.reason or "")
    assert "due" in (delivery.reason or "")
    assert "alarm.unconfirmed" in [log["event"] for log in logs]


async def test_a_delivered_one_is_captured_however_late(bench: Bench) -> None:
    bench.payments.plan["capture"] = [TransientFailure("503")]
    bench.payments.change(ID, due_date=today(bench) + 4 * DAY)
    await bench.arrive()
    await bench.work()
    assert (await bench.work(after=10 * 86400)).outcome is Outcome.COMPLETED


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"invoice_number": "A1B2C-000002"}, "number"),
        ({"amount": 60000}, "amount"),
        ({"due_date": date(2099, 1, 2)}, "due date"),
        ({"currency": "SEK"}, "currency"),
    ],
)
async def test_an_invoice_that_changes_while_it_is_prepared_is_not_sent(
    bench: Bench, change: dict[str, object], named: str
) -> None:
    bench.payments.change(ID, due_date=date(2099, 1, 1))
    await bench.arrive()

    def slow() -> bytes:
        bench.clock.advance(31)  # so that the first read does not count any more
        bench.payments.change(ID, **change)
        return b"%PDF-1.7 the old one"

    bench.payments.plan["invoice"] = [slow]
    delivery = await bench.work()
    assert delivery.outcome is Outcome.FAILED
    assert delivery.reason == f"the invoice's {named} changed while it was being prepared"
    assert bench.channel.sent == []


# --- a person's word -------------------------------------------------------------------------------------------------


async def test_what_is_only_told_stands_in_the_history(bench: Bench) -> None:
    bench.born_at = bench.clock.now()
    bench.payments.change(ID, created_at=bench.clock.now() - 2 * DAY)
    await bench.arrive()
    await bench.work()
    await bench.store.release(ID, KARI)
    details = [e.detail for e in await bench.store.history(ID) if e.step is Step.OPERATOR]
    assert details == ["released by kari: looked"]
