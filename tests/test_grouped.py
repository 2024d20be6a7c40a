"""Grouped purchases through the whole pipeline: recorded, watched, billed, delivered once and captured each."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from service.capture import capture_reference
from service.decide import Rules
from service.delivery import (
    CaptureOrder,
    ChannelFinding,
    DecidedBy,
    Delivery,
    GroupAddresses,
    Kind,
    Members,
    Outcome,
    Party,
    Request,
    Standing,
    Transaction,
    TransientFailure,
    UnconfirmedFailure,
)
from tests.fakes import ACCOUNT, a_transaction
from tests.workbench import RULES, Bench

GROUPED = "kravia.invoice_b2b_grouped"
MERCHANT = (ChannelFinding(level=DecidedBy.SESSION, value="merchant"),)
KRAVIA = (ChannelFinding(level=DecidedBy.SESSION, value="kravia"),)
BEFORE = replace(RULES, order=CaptureOrder.BEFORE_DELIVERY)
NUMBER = "A1B2C-000100"
INVOICE = f"{ACCOUNT}.invoice.{NUMBER}"
HOUR, DAY = 3600.0, 86400.0


def a_purchase(name: str, at: datetime, /, **changes: object) -> Transaction:
    party = Party(
        business_name="Nordmann AS",
        organization_number="923456789",
        country="NO",
        email="faktura@nordmann.no",
    )
    plain = a_transaction(f"{ACCOUNT}.{name}", product_type=GROUPED, findings=MERCHANT)
    bare = replace(plain, created_at=at, purchased_at=at, billing=party, invoice_number=None, invoice_url=None)
    return replace(bare, **({"due_date": None, "invoice_date": None, "merchant_reference": name} | changes))  # type: ignore[arg-type]


def bill(bench: Bench, *names: str, number: str = NUMBER, **changes: object) -> None:
    for name in names:
        url = f"https://checkout.dintero.com/v1/files/{number}"
        bench.payments.change(f"{ACCOUNT}.{name}", invoice_number=number, invoice_url=url, **changes)


async def at(bench: Bench, moment: datetime) -> None:
    await bench.work_all(after=(moment - bench.clock.now()).total_seconds())


async def buy(bench: Bench, *names: str, **changes: object) -> None:
    for name in names:
        bench.payments.add(a_purchase(name, bench.clock.now(), **changes))
        await bench.arrive(f"{ACCOUNT}.{name}")
    await bench.work_all()


async def found(bench: Bench, name: str) -> Delivery:
    (one,) = [d for d in await bench.store.find(f"{ACCOUNT}.{name}") if d.id == f"{ACCOUNT}.{name}"]
    return one


def billed_at(bench: Bench) -> datetime:
    """Return a moment of the next month at which this month's invoice may be there, by either rule."""
    now = bench.clock.now()
    months = now.year * 12 + now.month
    return datetime(months // 12, months % 12 + 1, 4, 12, tzinfo=UTC)


def middle_of_next_month(bench: Bench) -> datetime:
    now = bench.clock.now()
    months = now.year * 12 + now.month
    return datetime(months // 12, months % 12 + 1, 15, 12, tzinfo=UTC)


@pytest.fixture(params=[RULES, BEFORE], ids=["after", "before"])
async def shop(request: pytest.FixtureRequest, bench: Bench) -> Bench:
    rules: Rules = request.param
    bench.rules = rules
    await at(bench, middle_of_next_month(bench))
    return bench


def in_order(bench: Bench) -> tuple[str, ...]:
    """Return what is done, as CAPTURE_ORDER has it."""
    return ("captured", "delivered") if bench.rules.order is CaptureOrder.BEFORE_DELIVERY else ("delivered", "captured")


async def test_a_purchase_is_recorded_and_nothing_is_sent_or_captured(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    purchase = await found(shop, "p1")
    assert (purchase.outcome, purchase.kind) == (Outcome.OPEN, Kind.PURCHASE)
    assert (purchase.reason or "").startswith("waits for the invoice of ")
    (one, two) = await shop.store.members(Members())
    assert one.purchase.group == two.purchase.group
    assert one.purchase.period_start == shop.clock.now().date().replace(day=1)
    await shop.work_all(after=5 * DAY)
    assert not shop.payments.captures
    assert not shop.channel.sent
    reads = len(shop.payments.reads)
    await shop.work_all(after=2 * DAY)
    assert len(shop.payments.reads) == reads  # it is not looked at before its invoice can be there


async def test_one_invoice_is_delivered_once_and_every_purchase_captured(shop: Bench) -> None:
    await buy(shop, "p1", "p2", "p3")
    await at(shop, billed_at(shop))
    bill(shop, "p1", "p2", "p3", due_date=date(2099, 1, 1))
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(6):
        await shop.work_all(after=70)
    await shop.work_all(after=HOUR)
    assert [sent.recipient.address for sent in shop.channel.sent] == ["faktura@nordmann.no"]
    assert sorted(request.transaction_id for request in shop.payments.captures) == [
        f"{ACCOUNT}.{name}" for name in ("p1", "p2", "p3")
    ]
    invoice = await found(shop, f"invoice.{NUMBER}")
    assert (invoice.kind, invoice.outcome, invoice.invoice_number) == (Kind.GROUPED, Outcome.COMPLETED, NUMBER)
    assert invoice.amount == 3 * 50000
    assert invoice.progress == in_order(shop)
    for name in ("p1", "p2", "p3"):
        purchase = await found(shop, name)
        assert (purchase.outcome, purchase.progress) == (Outcome.COMPLETED, in_order(shop)), purchase
    assert [found.id for found in await shop.store.find(NUMBER)] == [INVOICE]


async def test_after_delivery_nothing_is_captured_until_the_invoice_is_sent(bench: Bench) -> None:
    await at(bench, middle_of_next_month(bench))
    await buy(bench, "p1", "p2")
    await at(bench, billed_at(bench))
    bill(bench, "p1", "p2")
    bench.channel.plan = [TransientFailure("busy"), TransientFailure("busy")]
    await bench.work_all(after=12 * HOUR + 700)
    assert not bench.payments.captures
    for _ in range(12):
        await bench.work_all(after=300)
    assert len(bench.channel.sent) == 1
    assert len(bench.payments.captures) == 2


async def test_before_delivery_nothing_is_sent_until_all_are_captured(bench: Bench) -> None:
    bench.rules = BEFORE
    await at(bench, middle_of_next_month(bench))
    await buy(bench, "p1", "p2")
    await at(bench, billed_at(bench))
    bill(bench, "p1", "p2")
    bench.payments.plan["capture"] = [TransientFailure("busy"), TransientFailure("busy")]
    await bench.work_all(after=12 * HOUR + 700)
    assert not bench.channel.sent
    for _ in range(12):
        await bench.work_all(after=300)
    assert len(bench.channel.sent) == 1
    assert (await found(bench, f"invoice.{NUMBER}")).outcome is Outcome.COMPLETED


async def test_a_void_takes_a_purchase_out_of_its_group(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    shop.payments.change(f"{ACCOUNT}.p1", standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
    await shop.arrive(f"{ACCOUNT}.p1", event=True)
    await shop.work_all()
    assert (await found(shop, "p1")).outcome is Outcome.CANCELLED
    assert [member.counts for member in await shop.store.members(Members())] == [False, True]


async def test_a_purchase_voided_after_it_was_billed_does_not_stop_the_others_invoice(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    await at(shop, billed_at(shop))
    bill(shop, "p1", "p2")
    shop.payments.change(f"{ACCOUNT}.p2", standing=Standing.VOIDED, status="AUTHORIZATION_VOIDED")
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(12):
        await shop.work_all(after=300)
    assert len(shop.channel.sent) == 1
    assert (await found(shop, "p2")).outcome is Outcome.CANCELLED
    invoice = await found(shop, f"invoice.{NUMBER}")
    assert (invoice.outcome, invoice.amount) == (Outcome.COMPLETED, 50000)


async def test_what_kravia_delivers_is_watched_and_not_sent(shop: Bench) -> None:
    await buy(shop, "p1", findings=KRAVIA)
    assert (await found(shop, "p1")).outcome is Outcome.OPEN
    await at(shop, billed_at(shop))
    bill(shop, "p1")
    await shop.work_all(after=12 * HOUR + 700)
    purchase = await found(shop, "p1")
    assert purchase.outcome is Outcome.SKIPPED
    assert NUMBER in (purchase.reason or "")
    assert not shop.channel.sent
    assert not shop.payments.captures


async def test_an_invoice_that_never_comes_needs_a_person(shop: Bench) -> None:
    await buy(shop, "p1")
    await at(shop, billed_at(shop))
    for _ in range(40):
        await shop.work_all(after=DAY / 2)
    purchase = await found(shop, "p1")
    assert purchase.outcome is Outcome.FAILED
    assert "10 days after it should have been issued" in (purchase.reason or "")
    bill(shop, "p1")
    await shop.arrive(f"{ACCOUNT}.p1")
    for _ in range(4):
        await shop.work_all(after=HOUR)
    assert len(shop.channel.sent) == 1


async def test_another_number_makes_an_invoice_of_its_own(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    await at(shop, billed_at(shop))
    bill(shop, "p1")
    bill(shop, "p2", number="A1B2C-000101")
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(12):
        await shop.work_all(after=300)
    assert len(shop.channel.sent) == 2
    assert {(await found(shop, f"invoice.A1B2C-00010{n}")).amount for n in (0, 1)} == {50000}


async def test_a_purchase_that_shows_the_number_late_is_captured_and_nothing_is_sent_again(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    await at(shop, billed_at(shop))
    bill(shop, "p1")
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(12):
        await shop.work_all(after=300)
    assert len(shop.channel.sent) == 1
    bill(shop, "p2")
    for _ in range(40):
        await shop.work_all(after=HOUR)
    assert len(shop.channel.sent) == 1
    assert (await found(shop, "p2")).outcome is Outcome.COMPLETED
    assert len(shop.payments.captures) == 2


async def test_addresses_that_differ_go_to_the_newest_and_the_record_counts_them(shop: Bench) -> None:
    await buy(shop, "p1")
    shop.clock.advance(60)
    other = replace(a_purchase("x", shop.clock.now()).billing or Party(), email="ny@nordmann.no")
    await buy(shop, "p2", billing=other)
    await at(shop, billed_at(shop))
    bill(shop, "p1", "p2")
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(12):
        await shop.work_all(after=300)
    assert [sent.recipient.address for sent in shop.channel.sent] == ["ny@nordmann.no"]
    history = await shop.store.history(INVOICE)
    assert "2 addresses on its purchases: the newest is used" in [entry.detail for entry in history]


async def test_an_address_of_the_merchants_own_list_goes_before_all_others(shop: Bench) -> None:
    listed = GroupAddresses(by_organization=(("NO923456789", "regnskap@nordmann.no"),))
    shop.rules = replace(shop.rules, group_addresses=listed)
    await buy(shop, "p1")
    await at(shop, billed_at(shop))
    bill(shop, "p1")
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(6):
        await shop.work_all(after=300)
    assert [sent.recipient.address for sent in shop.channel.sent] == ["regnskap@nordmann.no"]


async def test_a_send_in_doubt_is_repeated_as_any_other(shop: Bench) -> None:
    await buy(shop, "p1", "p2")
    await at(shop, billed_at(shop))
    bill(shop, "p1", "p2")
    shop.channel.plan = [UnconfirmedFailure("the connection broke")]
    await shop.work_all(after=12 * HOUR + 700)
    for _ in range(20):
        await shop.work_all(after=300)
    (first, second) = await shop.store.sends(INVOICE)
    assert first.message_id == second.message_id
    assert (await found(shop, f"invoice.{NUMBER}")).outcome is Outcome.COMPLETED


async def test_an_invoice_older_than_the_record_is_held_and_released_by_a_person(bench: Bench) -> None:
    await at(bench, middle_of_next_month(bench))
    await buy(bench, "p1")
    await at(bench, billed_at(bench))
    bench.born_at = bench.clock.now() + timedelta(days=3)
    bill(bench, "p1")
    for _ in range(3):
        await bench.work_all(after=13 * HOUR)
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert invoice.is_held
    assert "`deliveries resolve --not-delivered`" in (invoice.reason or "")
    assert not bench.channel.sent
    await bench.store.resolve(invoice.id, Request(by="ola", at=bench.clock.now()), delivered=False)
    for _ in range(4):
        await bench.work_all(after=HOUR)
    assert len(bench.channel.sent) == 1
    assert (await found(bench, "p1")).outcome is Outcome.COMPLETED


async def test_what_was_captured_before_the_record_was_lost_is_not_sent_again(bench: Bench) -> None:
    await at(bench, middle_of_next_month(bench))
    await buy(bench, "p1")
    await at(bench, billed_at(bench))
    bill(bench, "p1")
    bench.payments.begin(f"{ACCOUNT}.p1", capture_reference(f"{ACCOUNT}.p1"))
    for _ in range(4):
        await bench.work_all(after=13 * HOUR)
    assert not bench.channel.sent
    invoice = await found(bench, f"invoice.{NUMBER}")
    assert (invoice.outcome, (await found(bench, "p1")).outcome) == (Outcome.COMPLETED, Outcome.COMPLETED)
