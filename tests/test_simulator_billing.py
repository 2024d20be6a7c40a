"""The simulator's grouped bills: which purchases become which invoice, when, and what may go otherwise."""

import io
from datetime import UTC, date, datetime
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pypdf import PdfReader

from service.simulator.billing import issue_date, period_of
from service.simulator.documents import Json, Personality, Refusal
from service.simulator.faults import Faults
from service.simulator.keys import Account, Keys
from service.simulator.provider import Provider
from tests.fakes import MovedClock

OSLO = ZoneInfo("Europe/Oslo")


class MovableClock(MovedClock):
    """Can be put to a time, in the past too: these tests are of dates."""

    def set(self, at: datetime) -> None:
        self.advance((at - self.now()).total_seconds())


@pytest.fixture
def clock() -> MovableClock:
    clock = MovableClock()
    clock.set(datetime(2027, 1, 5, 11, tzinfo=UTC))
    return clock


@pytest.fixture
def personality() -> Personality:
    return "current"


@pytest.fixture
def provider(clock: MovableClock, personality: Personality) -> Provider:
    random = Random(3)
    return Provider(
        base_url="http://127.0.0.1:1/v1",
        cdn_url="http://127.0.0.1:2/cdn",
        clock=clock,
        random=random,
        keys=Keys(account=Account(), clock=clock, random=random),
        personality=personality,
        faults=Faults(Random(3)),
    )


seed = pytest.mark.parametrize("personality", ["seed"])


def on(day: str, hour: int = 11) -> datetime:
    return datetime.fromisoformat(f"{day}T{hour:02}:00+00:00")


def numbers(provider: Provider, *purchases: Json) -> list[str | None]:
    return [provider.transactions[p["id"]]["metadata"].get("kravia:invoice_number") for p in purchases]


def text_of(provider: Provider, purchase: Json) -> str:
    return "".join(page.extract_text() for page in PdfReader(io.BytesIO(provider.document(purchase["id"]))).pages)


@pytest.mark.parametrize(
    ("purchased", "interval", "issued"),
    [
        ("2027-01-05", "monthly", "2027-02-01"),
        ("2027-02-15", "monthly", "2027-03-01"),
        ("2027-02-20", "quarterly", "2027-04-01"),
        ("2027-04-10", "quarterly", "2027-07-01"),
        ("2026-01-20", "monthly", "2026-02-02"),
        ("2026-12-31", "monthly", "2027-01-01"),  # a holiday, but no weekend
        ("2027-12-01", "quarterly", "2028-01-03"),
    ],
)
def test_a_bill_is_made_on_the_first_or_the_monday_after(purchased: str, interval: str, issued: str) -> None:
    _, after = period_of(on(purchased), interval, OSLO)
    assert issue_date(after) == date.fromisoformat(issued)


def test_a_period_is_by_the_clocks_of_oslo() -> None:
    assert period_of(on("2027-01-31", 22), "monthly", OSLO)[0] == date(2027, 1, 1)
    assert period_of(on("2027-01-31", 23), "monthly", OSLO)[0] == date(2027, 2, 1)


async def test_purchases_become_one_invoice_when_their_period_has_ended(
    provider: Provider, clock: MovableClock
) -> None:
    first = provider.sell(amount=10_000, reference="order-1", customer_reference=" ")
    clock.set(on("2027-01-20"))
    second = provider.sell(amount=20_050, reference="order-2")
    clock.set(on("2027-01-31", 22))
    assert provider.bill_due() == []
    assert (first["status"], first["metadata"], numbers(provider, first, second)) == ("AUTHORIZED", {}, [None, None])
    [(group, waiting)] = provider.forecast().items()
    assert (group.period, [t["id"] for t in waiting]) == (date(2027, 1, 1), [first["id"], second["id"]])

    clock.set(on("2027-01-31", 23))  # the 1st in Oslo
    [bill] = provider.bill_due()
    assert (bill.issued, bill.due, bill.amount) == (date(2027, 2, 1), date(2027, 2, 15), 30_050)
    assert provider.bill_due() == []
    assert provider.forecast() == {}
    for purchase in (first, second):
        assert purchase["status"] == "AUTHORIZED"
        assert purchase["metadata"] == {
            "kravia:invoice_number": bill.number,
            "kravia:invoice_url": bill.url,
            "kravia:invoice_channel": "merchant",
        }
        facts = purchase["events"][-1]["metadata"]
        assert (facts["kravia:invoice_date"], facts["kravia:invoice_due_date"]) == ("2027-02-01", "2027-02-15")
    assert len(provider.files) == 1
    text = text_of(provider, first)
    for expected in (bill.number, "order-1", "order-2", "100,00", "200,50", "300,50", "Fjordbygg AS", "15. feb. 2027"):
        assert expected in text, expected


async def test_reading_bills_what_is_due_unless_told_not_to(provider: Provider, clock: MovableClock) -> None:
    purchase = provider.sell()
    provider.billing.by_itself = False
    clock.set(on("2027-02-01"))
    assert "kravia:invoice_number" not in provider.transaction(purchase["id"])["metadata"]
    provider.billing.by_itself = True
    assert "kravia:invoice_number" in provider.transaction(purchase["id"])["metadata"]


@pytest.mark.parametrize(
    "other",
    [
        {"business_name": "Fjordbygg as"},
        {"organization_number": "999 999 999"},
        {"country": "SE", "currency": "NOK"},
        {"customer_reference": "dept-engineering"},
        {"currency": "EUR"},
        {"interval": "quarterly"},
        {"at": on("2026-12-30")},
    ],
)
async def test_no_invoice_mixes_groups(provider: Provider, clock: MovableClock, other: dict[str, Any]) -> None:
    usual, odd = provider.sell(), provider.sell(**other)
    clock.set(on("2027-04-02"))
    assert len(provider.bill_due()) == 2
    assert len({*numbers(provider, usual, odd)}) == 2


async def test_the_interval_comes_from_the_nearest_level(provider: Provider, clock: MovableClock) -> None:
    details = {"invoice_schedule": {"interval": "quarterly"}, "days_until_due": 30}
    option = {"type": "kravia.invoice_b2b_grouped", "details": details}
    provider.checkout = {"configuration": {"payment_options": [option]}}
    quarterly, monthly = provider.sell(), provider.sell(interval="monthly", days_until_due=10)
    clock.set(on("2027-03-31"))
    [bill] = provider.bill_due()
    assert bill.transactions == (monthly["id"],)
    assert bill.due == date(2027, 2, 11)
    clock.set(on("2027-04-01"))
    assert [bill.transactions for bill in provider.bill_due()] == [(quarterly["id"],)]


async def test_two_months_at_once_are_two_invoices(provider: Provider, clock: MovableClock) -> None:
    january = provider.sell()
    clock.set(on("2027-02-15"))
    provider.billing.by_itself = False
    february = provider.sell()
    clock.set(on("2027-05-01"))
    assert [(bill.transactions, bill.issued) for bill in provider.bill_due()] == [
        ((january["id"],), date(2027, 2, 1)),
        ((february["id"],), date(2027, 3, 1)),
    ]


async def test_a_voided_purchase_is_not_billed(provider: Provider, clock: MovableClock) -> None:
    kept, voided = provider.sell(), provider.sell()
    provider.void(voided["id"])
    clock.set(on("2027-02-01"))
    [bill] = provider.bill_due()
    assert bill.transactions == (kept["id"],)


@pytest.mark.parametrize("late", ["own", "next"])
async def test_a_late_purchase(provider: Provider, clock: MovableClock, late: Any) -> None:
    provider.billing.late = late
    first = provider.sell()
    clock.set(on("2027-02-03"))
    provider.bill_due()
    straggler, another = provider.sell(at=on("2027-01-30")), provider.sell()
    assert straggler["created_at"].startswith("2027-01-30")
    billed = provider.bill_due()
    if late == "own":
        assert [(bill.transactions, bill.issued) for bill in billed] == [((straggler["id"],), date(2027, 2, 3))]
    else:
        assert billed == []
    clock.set(on("2027-03-01"))
    provider.bill_due()
    one, two, three = numbers(provider, first, straggler, another)
    assert one not in (two, three)
    assert (two == three) is (late == "next")


async def test_with_channel_kravia_its_collection_begins_with_the_bill(provider: Provider, clock: MovableClock) -> None:
    theirs, ours = provider.sell(channel=None, customer_reference="theirs"), provider.sell()
    assert not provider.begun(theirs["id"])
    clock.set(on("2027-02-01"))
    assert provider.begun(theirs["id"])
    assert not provider.begun(ours["id"])
    assert provider.transaction(theirs["id"])["metadata"]["kravia:invoice_channel"] == "kravia"


async def test_a_purchase_is_captured_after_it_is_billed_and_once(provider: Provider, clock: MovableClock) -> None:
    purchase = provider.sell(amount=10_000)
    with pytest.raises(Refusal) as refused:
        provider.capture(purchase["id"], {"amount": 10_000})
    assert refused.value.status == 400
    clock.set(on("2027-02-01"))
    captured = provider.capture(purchase["id"], {"amount": 10_000, "capture_reference": "ours"})
    assert captured["status"] == "AUTHORIZED"
    assert [event["event"] for event in captured["events"]] == ["INITIALIZE", "AUTHORIZE", "INITIATE_CAPTURE"]
    with pytest.raises(Refusal):
        provider.capture(purchase["id"], {"amount": 10_000})
    assert len(provider.captures) == 1
    assert provider.pay(purchase["id"])["status"] == "CAPTURED"


@seed
async def test_the_seeds_purchases_are_captured_from_the_start(provider: Provider, clock: MovableClock) -> None:
    purchase = provider.sell()
    assert (purchase["status"], purchase["metadata"]) == ("CAPTURED", {})
    clock.set(on("2027-02-01"))
    [bill] = provider.bill_due()
    assert purchase["status"] == "CAPTURED"
    assert purchase["metadata"] == {"kravia:invoice_number": bill.number, "kravia:invoice_url": bill.url}


# --- what goes otherwise ---------------------------------------------------------------------------------------------


async def billed(provider: Provider, clock: MovableClock, fault: str, where: str = "") -> tuple[Json, Json, Json]:
    """Sell three, ask for a fault, and bill them on the day."""
    provider.billing.by_itself = False
    sold = (provider.sell(amount=10_000), provider.sell(amount=20_000), provider.sell(amount=30_000))
    for purchase, second in zip(sold, (1, 2, 3), strict=True):
        provider.terms[purchase["id"]].counted_at = on(f"2027-01-0{second}")
    provider.faults.on(fault, count=1, where=where)
    clock.set(on("2027-02-01"))
    provider.bill_due()
    return sold


async def test_voided_before_billing(provider: Provider, clock: MovableClock) -> None:
    *kept, newest = await billed(provider, clock, "bill-voided")
    assert newest["status"] == "AUTHORIZATION_VOIDED"
    assert [(bill.transactions, bill.amount) for bill in provider.billing.bills] == [
        (tuple(t["id"] for t in kept), 30_000)
    ]


async def test_a_changed_name_makes_two_invoices(provider: Provider, clock: MovableClock) -> None:
    first, second, newest = numbers(provider, *await billed(provider, clock, "bill-renamed"))
    assert first == second
    assert newest not in (None, first)
    assert {bill.group.business_name for bill in provider.billing.bills} == {"Fjordbygg AS", "Fjordbygg AS Holding"}


async def test_left_out_it_comes_next_time(provider: Provider, clock: MovableClock) -> None:
    sold = await billed(provider, clock, "bill-left-out")
    assert numbers(provider, sold[-1]) == [None]
    clock.set(on("2027-03-01"))
    [bill] = provider.bill_due()
    assert bill.transactions == (sold[-1]["id"],)
    assert bill.issued == date(2027, 3, 1)


async def test_a_number_of_its_own(provider: Provider, clock: MovableClock) -> None:
    first, second, newest = numbers(provider, *await billed(provider, clock, "bill-own-number"))
    assert first == second
    assert newest not in (None, first)
    assert {bill.issued for bill in provider.billing.bills} == {date(2027, 2, 1)}


async def test_another_total(provider: Provider, clock: MovableClock) -> None:
    sold = await billed(provider, clock, "bill-total")
    [bill] = provider.billing.bills
    assert bill.amount == sum(t["amount"] for t in sold) == 65_000
    assert "650,00" in text_of(provider, sold[0])
    items = [{"line_id": item["line_id"], "amount": item["amount"]} for item in sold[-1]["items"]]
    provider.capture(sold[-1]["id"], {"amount": 35_000, "items": items})


async def test_another_date(provider: Provider, clock: MovableClock) -> None:
    await billed(provider, clock, "bill-date")
    assert [(bill.issued, bill.due) for bill in provider.billing.bills] == [(date(2027, 2, 6), date(2027, 2, 20))]


async def test_some_first_and_the_rest_later(provider: Provider, clock: MovableClock) -> None:
    sold = await billed(provider, clock, "bill-some-first")
    number, *rest = numbers(provider, *sold)
    assert (number, rest) == ("A1B2C-000001", [None, None])
    assert provider.forecast() == {}
    clock.advance(3599)
    provider.bill_due()
    assert numbers(provider, *sold) == [number, None, None]
    clock.advance(2)
    provider.bill_due()
    assert numbers(provider, *sold) == [number] * 3
    assert len(provider.billing.bills) == 1


async def test_mixed_currencies_under_one_number(provider: Provider, clock: MovableClock) -> None:
    provider.billing.by_itself = False
    sold = [provider.sell(), provider.sell(currency="EUR"), provider.sell(customer_reference="other")]
    provider.faults.on("bill-mixed", count=1)
    clock.set(on("2027-02-01"))
    provider.bill_due()
    first, second, other = numbers(provider, *sold)
    assert first == second != other
    assert {"NOK", "EUR"} & {*text_of(provider, sold[0]).split()}


async def test_where_narrows_a_fault_to_a_customer(provider: Provider, clock: MovableClock) -> None:
    others = provider.sell(organization_number="888888888")
    sold = await billed(provider, clock, "bill-voided", where="999999999")
    assert others["status"] == "AUTHORIZED"
    assert sold[-1]["status"] == "AUTHORIZATION_VOIDED"
    assert provider.faults.struck == {"bill-voided": 1}
