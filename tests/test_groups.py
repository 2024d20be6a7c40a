"""Groups of purchases, their states and totals, and what of them was billed otherwise than expected."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.comparing import Comparison
from service.delivery import (
    NOT_BILLED,
    PROVIDER_LANE,
    Arrival,
    DecidedBy,
    Delivery,
    Interval,
    Job,
    Kind,
    Member,
    Members,
    Outcome,
    Party,
    Purchase,
    Resolution,
    Schedule,
    Store,
    Terms,
)
from service.groups import UNBILLED, Calendar, Group, State, compared, forecast, groups_of, totals
from service.purchases import invoice_id, purchase_of
from service.store import SqlStore
from tests.fakes import ACCOUNT, a_transaction

OSLO = ZoneInfo("Europe/Oslo")
BOUGHT = datetime(2026, 11, 10, 12, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BILLED = datetime(2026, 12, 3, 12, tzinfo=UTC)
NORDMANN = Party(business_name="Nordmann AS", organization_number="923456789", country="NO")
NUMBER = "A1B2C-000100"
ISSUED, DUE = date(2026, 12, 1), date(2026, 12, 15)


def member(
    name: str,
    at: datetime = BOUGHT,
    *,
    number: str | None = None,
    outcome: Outcome = Outcome.OPEN,
    done_at: datetime | None = None,
    terms: Terms | None = None,
    **changes: Any,
) -> Member:
    """Return a purchase as it is read, and its delivery; `done_at` is when it was delivered, captured and closed."""
    given = {"billing": NORDMANN, "purchased_at": at, "invoice_number": number} | changes
    if number:
        given = {"invoice_date": ISSUED, "due_date": DUE} | given
    transaction = a_transaction(f"{ACCOUNT}.{name}", **given)
    resolution = Resolution(channel="merchant", decided_by=DecidedBy.SESSION, terms=terms or Terms())
    purchase = purchase_of(transaction, resolution, account_id=ACCOUNT, received_at=at, zone=OSLO)
    delivery = Delivery(
        id=purchase.transaction_id,
        account_id=ACCOUNT,
        transaction_id=purchase.transaction_id,
        received_at=at,
        kind=Kind.PURCHASE,
        outcome=outcome,
        delivered_at=done_at,
        captured_known_at=done_at,
        closed_at=done_at,
    )
    return Member(purchase=purchase, delivery=delivery)


def done(name: str, number: str = NUMBER, at: datetime = BILLED, **changes: Any) -> Member:
    return member(name, number=number, outcome=Outcome.COMPLETED, done_at=at, **changes)


def calendar(now: datetime = NOW) -> Calendar:
    return Calendar(now=now, zone=OSLO)


def one(*members: Member, now: datetime = NOW) -> Group:
    (group,) = groups_of(members, calendar(now))
    return group


def said(*members: Member, now: datetime = BILLED + timedelta(hours=2)) -> dict[str, str]:
    found = compared(members, calendar(now))
    return {name.removeprefix(f"{ACCOUNT}."): words for name, words in found.items() if words}


# --- what a group is -------------------------------------------------------------------------------------------------


def test_a_group_has_its_purchases_total_and_dates() -> None:
    group = one(member("a"), member("b", amount=700), member("v", outcome=Outcome.CANCELLED))
    assert (group.total, len(group.counted), len(group.members)) == (50700, 2, 3)
    assert (group.period.label, group.state) == ("2026-11", State.OPEN)
    assert (group.dates.issue, group.dates.due) == (ISSUED, DUE)


@pytest.mark.parametrize(
    ("members", "now", "state"),
    [
        ([member("a")], datetime(2026, 11, 30, 22, 59, tzinfo=UTC), State.OPEN),
        ([member("a")], datetime(2026, 11, 30, 23, 0, tzinfo=UTC), State.EXPECTED),
        ([member("a")], datetime(2026, 12, 2, 22, 59, tzinfo=UTC), State.EXPECTED),
        ([member("a")], datetime(2026, 12, 2, 23, 0, tzinfo=UTC), State.LATE),
        ([member("a"), member("b", number=NUMBER)], BILLED, State.BILLED),
        ([done("a"), member("b", number=NUMBER)], BILLED, State.BILLED),
        ([done("a"), done("b")], BILLED, State.CAPTURED),
        ([done("a"), member("b", outcome=Outcome.CANCELLED)], BILLED, State.CAPTURED),
        ([done("a"), member("b", outcome=Outcome.FAILED)], BILLED, State.FAILED),
        ([member("a", number=NUMBER, outcome=Outcome.SKIPPED)], BILLED, State.SKIPPED),
        ([member("a", outcome=Outcome.CANCELLED)], BILLED, State.VOIDED),
    ],
)
def test_a_group_has_a_state(members: list[Member], now: datetime, state: State) -> None:
    assert one(*members, now=now).state is state


def test_a_group_that_is_delivered_and_not_captured_says_so() -> None:
    sent = done("a")
    waits = replace(sent, delivery=replace(sent.delivery, captured_known_at=None, outcome=Outcome.OPEN))
    assert one(waits, now=BILLED).state is State.DELIVERED


def looks_like(**changes: Any) -> bool:
    first, second = groups_of([member("a"), member("b", billing=replace(NORDMANN, **changes))], calendar())
    assert (first.near == (second.id,)) == (second.near == (first.id,))
    return bool(first.near)


@pytest.mark.parametrize(
    ("changes", "near"),
    [
        ({"organization_number": "923 456 789"}, True),
        ({"organization_number": "NO923456789MVA"}, True),
        ({"business_name": "NORDMANN  A.S."}, True),
        ({"business_name": "Nordmann Holding AS"}, True),  # the same number
        ({"business_name": "nordmann as", "organization_number": "923456798"}, True),
        ({"organization_number": "999999999"}, False),  # another customer of the same name
        ({"business_name": "Svensk AB", "organization_number": "5560360793"}, False),
        ({"customer_reference": "Project 7"}, False),  # on purpose
    ],
)
def test_what_becomes_two_invoices_by_a_slip_is_shown(changes: dict[str, Any], near: bool) -> None:
    assert looks_like(**changes) is near


def test_what_is_billed_is_a_near_miss_no_more() -> None:
    other = replace(NORDMANN, business_name="NORDMANN AS")
    found = groups_of([done("a"), member("b", billing=other)], calendar(BILLED))
    assert [group.near for group in found] == [(), ()]


def test_terms_that_change_within_the_period_are_shown() -> None:
    later = member("b", at=BOUGHT + timedelta(days=1), terms=Terms(days_until_due=30))
    group = one(member("a"), later)
    assert group.changes == ("days_until_due changed within the period: 14, then 30",)
    assert group.dates.due == date(2026, 12, 31)  # by the newest purchase


def test_an_interval_that_changes_within_the_period_is_shown() -> None:
    quarterly = member("b", terms=Terms(interval=Interval.QUARTERLY))
    found = groups_of([member("a"), quarterly], calendar())
    told = {group.period.label: group.changes for group in found}
    assert told == {
        "2026-11": ("the interval changed within the period: some are billed with 2026-Q4",),
        "2026-Q4": ("the interval changed within the period: some are billed with 2026-11",),
    }


def test_forecast_adds_up_by_day_and_currency() -> None:
    svensk = Party(business_name="Svensk AB", organization_number="5560360793", country="SE")
    members = [
        member("a"),
        member("b", amount=5),
        member("c", billing=svensk, currency="SEK", amount=7),
        member("d", at=BOUGHT + timedelta(days=30), amount=11),
        done("e", amount=13, at=NOW, billing=svensk),
    ]
    found = groups_of(members, calendar())
    told = [(day.dates.issue, day.currency, day.invoices, day.purchases, day.total) for day in forecast(found)]
    assert told == [
        (ISSUED, "NOK", 1, 2, 50005),
        (ISSUED, "SEK", 1, 1, 7),
        (date(2027, 1, 1), "NOK", 1, 1, 11),
    ]
    assert forecast(found)[-1].dates.issue_business_day == date(2027, 1, 4)
    assert totals(found) == (("NOK", 50005 + 11 + 13), ("SEK", 7))


# --- what was billed, against what was expected ----------------------------------------------------------------------


def test_what_was_billed_as_expected_is_no_difference() -> None:
    assert said(done("a"), done("b"), member("v", outcome=Outcome.CANCELLED)) == {}


def test_what_waits_for_its_day_is_no_difference() -> None:
    assert said(member("a"), now=datetime(2026, 12, 2, 22, 59, tzinfo=UTC)) == {}


def test_what_was_never_billed_is_told_two_days_after() -> None:
    words = said(member("a"), now=datetime(2026, 12, 2, 23, 0, tzinfo=UTC))
    assert words == {"a": f"{NOT_BILLED}, and its invoice should have been issued on 2026-12-01 at the latest"}


def test_the_later_rule_counts() -> None:
    bought = datetime(2026, 12, 10, tzinfo=UTC)  # 2027-01-01 is a holiday, and a Friday
    assert said(member("a", bought), now=datetime(2027, 1, 5, 22, 59, tzinfo=UTC)) == {}
    assert "2027-01-04" in said(member("a", bought), now=datetime(2027, 1, 5, 23, 1, tzinfo=UTC))["a"]


def test_a_purchase_that_is_missing_is_told_when_the_others_were_read() -> None:
    of_group = (done("a"), done("b"), member("c"))
    early = BILLED - timedelta(days=1)
    others = tuple(done(name, at=early) for name in ("a", "b"))
    assert said(*others, member("c"), now=early + timedelta(minutes=59)) == {}
    assert said(*others, member("c"), now=early + timedelta(hours=1)) == {
        "c": f"missing: others of its group are on invoice {NUMBER}"
    }
    assert said(*of_group) == said(*others, member("c"), now=BILLED)


NEAR_THE_END = datetime(2026, 11, 30, 22, 30, tzinfo=UTC)


def test_a_purchase_near_the_end_of_a_period_is_not_missed() -> None:
    assert said(done("a"), member("late", NEAR_THE_END)) == {}


def test_a_purchase_near_the_end_may_be_billed_with_the_next_period() -> None:
    december: dict[str, Any] = {"number": "N2", "invoice_date": date(2027, 1, 1), "due_date": date(2027, 1, 15)}
    next_one = done(
        "b", at=datetime(2027, 1, 2, tzinfo=UTC), **december, purchased_at=datetime(2026, 12, 10, tzinfo=UTC)
    )
    late = done("late", at=datetime(2027, 1, 2, tzinfo=UTC), **december, purchased_at=NEAR_THE_END)
    assert said(done("a"), next_one, late, now=datetime(2027, 1, 2, 3, tzinfo=UTC)) == {}
    alone = done("late", at=datetime(2027, 1, 2, tzinfo=UTC), **december, purchased_at=NEAR_THE_END)
    assert said(alone, now=datetime(2027, 1, 2, 3, tzinfo=UTC)) == {}


def test_a_purchase_on_an_invoice_of_another_period_is_unknown() -> None:
    october = done("x", purchased_at=datetime(2026, 10, 10, tzinfo=UTC))
    assert said(done("a"), done("b"), october) == {
        "x": f"unknown on invoice {NUMBER}: billed with 2026-11, expected with 2026-10"
    }


def test_a_purchase_on_the_invoice_of_another_customer_is_unknown() -> None:
    other = done("x", billing=replace(NORDMANN, business_name="Svensk AB"), purchased_at=NEAR_THE_END)
    assert said(done("a"), done("b"), other) == {
        "x": f"unknown on invoice {NUMBER}: billed with another customer's, expected with 2026-11"
    }


def test_a_group_on_two_invoices_is_told() -> None:
    assert said(done("a"), done("b"), done("c", "OTHER")) == {
        "c": f"on invoice OTHER, others of its group are on {NUMBER}"
    }


@pytest.mark.parametrize(
    ("issued", "due", "words"),
    [
        (date(2027, 1, 1), date(2027, 1, 15), None),
        (date(2027, 1, 4), date(2027, 1, 18), None),  # by the other rule
        (None, date(2027, 1, 18), None),
        (None, None, None),
        (date(2027, 1, 5), date(2027, 1, 19), "invoice date 2027-01-05, expected 2027-01-01 or 2027-01-04"),
        (date(2027, 1, 1), date(2027, 1, 31), "due on 2027-01-31, expected 2027-01-15 or 2027-01-18"),
    ],
)
def test_other_dates_are_told(issued: date | None, due: date | None, words: str | None) -> None:
    bought = datetime(2026, 12, 10, tzinfo=UTC)
    billed = done("a", purchased_at=bought, invoice_date=issued, due_date=due)
    assert said(billed).get("a") == words


def test_nothing_that_is_told_names_a_customer() -> None:
    other = replace(NORDMANN, business_name="Kari Hemmelig", organization_number="12345678901")
    words = said(done("a"), done("b"), done("x", billing=other), member("m"), done("d", due_date=date(2026, 12, 9)))
    assert set(words) == {"x", "m", "d"}
    assert not [text for text in words.values() if "Hemmelig" in text or "1234567" in text or "Nordmann" in text]


# --- properties ------------------------------------------------------------------------------------------------------

PARTIES = st.builds(
    Party,
    business_name=st.sampled_from(["Nordmann AS", "nordmann as", "Svensk AB", None]),
    organization_number=st.sampled_from(["923456789", "923 456 789", "5560360793", None]),
    country=st.sampled_from(["NO", "no", "SE", None]),
    customer_reference=st.sampled_from([None, "", " ", "A", "B"]),
)
PURCHASES = st.lists(
    st.builds(
        lambda at, party, amount, currency, interval, days, outcome, number: member(
            "p",
            at,
            number=number,
            outcome=outcome,
            terms=Terms(interval=interval, days_until_due=days),
            billing=party,
            amount=amount,
            currency=currency,
        ),
        st.datetimes(datetime(2026, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC)),  # noqa: DTZ001  # as Hypothesis wants them
        PARTIES,
        st.integers(0, 10**9),
        st.sampled_from(["NOK", "SEK"]),
        st.sampled_from(Interval),
        st.integers(0, 365),
        st.sampled_from(Outcome),
        st.sampled_from([None, "N1", "N2"]),
    ),
    max_size=12,
)


def named(found: list[Member]) -> list[Member]:
    """Give each an id of its own."""
    return [
        Member(
            purchase=replace(one.purchase, transaction_id=f"{ACCOUNT}.{n}"),
            delivery=replace(one.delivery, id=f"{ACCOUNT}.{n}", transaction_id=f"{ACCOUNT}.{n}"),
        )
        for n, one in enumerate(found)
    ]


def key(purchase: Purchase) -> tuple[object, ...]:
    names = (purchase.business_name, purchase.organization_number, purchase.country, purchase.customer_reference)
    return (purchase.account_id, *names, purchase.currency, purchase.interval, purchase.period_start)


@given(PURCHASES, st.datetimes(datetime(2026, 1, 1), datetime(2028, 3, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # likewise
def test_every_purchase_is_in_one_group_and_no_group_mixes(found: list[Member], now: datetime) -> None:
    members = named(found)
    groups = groups_of(members, calendar(now))
    placed = Counter(one.purchase.transaction_id for group in groups for one in group.members)
    assert placed == Counter(one.purchase.transaction_id for one in members)
    keys = [{key(one.purchase) for one in group.members} for group in groups]
    assert all(len(of_group) == 1 for of_group in keys)
    assert len(set().union(*keys)) == len(groups)
    for group in groups:
        assert all(
            group.period.start <= p.purchase.purchased_at.astimezone(OSLO).date() <= group.period.end
            for p in group.members
        )
        assert group.dates.issue > group.period.end


@given(PURCHASES, st.datetimes(datetime(2026, 1, 1), datetime(2028, 3, 1), timezones=st.just(UTC)))  # noqa: DTZ001  # likewise
def test_totals_are_conserved(found: list[Member], now: datetime) -> None:
    members = named(found)
    groups = groups_of(members, calendar(now))
    expected: Counter[str] = Counter()
    for one in members:
        expected[one.purchase.currency] += one.purchase.amount if one.counts else 0
    assert {c: n for c, n in totals(groups) if n} == {c: n for c, n in expected.items() if n}
    unbilled = [group for group in groups if group.state in UNBILLED]
    assert sum(day.total for day in forecast(groups)) == sum(group.total for group in unbilled)
    assert sum(day.purchases for day in forecast(groups)) == sum(len(group.counted) for group in unbilled)
    assert compared(members, calendar(now)).keys() == {one.purchase.transaction_id for one in members if one.counts}


# --- the chore, on both databases ------------------------------------------------------------------------------------


async def enter(store: Store, one: Member) -> None:
    await store.receive(Arrival(transaction_id=one.delivery.id, account_id=ACCOUNT, at=NOW))
    (claim,) = await store.claim(ACCOUNT, PROVIDER_LANE, 1, lease=60, suspects=False)
    await store.record_purchase(claim, one.purchase)
    state = replace(claim.delivery, kind=Kind.PURCHASE, outcome=one.delivery.outcome)
    closed = datetime.now(UTC) if state.outcome is not Outcome.OPEN else None
    delivered = one.delivery.delivered_at
    state = replace(state, closed_at=closed, delivered_at=delivered, captured_known_at=delivered)
    await store.save(claim, state, Schedule(due_in=None if closed else 10**6))


async def remarks(store: SqlStore) -> dict[str, str | None]:
    found = await store.members(Members())
    return {one.purchase.transaction_id.removeprefix(f"{ACCOUNT}."): one.purchase.remark for one in found}


async def test_the_chore_writes_remarks_and_takes_them_back(store: SqlStore) -> None:
    for one in (done("a"), member("m")):
        await enter(store, one)
    turn = Comparison(store=store, account_id=ACCOUNT, timezone=OSLO).turn
    missing = f"missing: others of its group are on invoice {NUMBER}"
    job = Job(name="groups", token="t", now=BILLED + timedelta(hours=2), last_run_at=None, note=None)
    await turn(job)
    assert await remarks(store) == {"a": None, "m": missing}
    elsewhere = Comparison(store=store, account_id="T87654321", timezone=OSLO)
    await elsewhere.turn(replace(job, now=BILLED - timedelta(days=3)))
    assert await remarks(store) == {"a": None, "m": missing}  # of another account
    concerns = {one.condition.value: one.cases[0] for one in await store.concerns(ACCOUNT)}
    assert concerns["group_differs"].reason == missing
    (open_one,) = await store.members(Members(transaction_id=f"{ACCOUNT}.m"))
    assert concerns["group_differs"].subject == open_one.purchase.group
    await turn(replace(job, now=BILLED - timedelta(days=3)))  # as if the invoice were not known yet
    assert await remarks(store) == {"a": None, "m": None}
    assert "group_differs" not in {one.condition.value for one in await store.concerns(ACCOUNT)}


def test_an_invoice_has_an_id() -> None:
    assert done("a").purchase.invoice_id == invoice_id(ACCOUNT, NUMBER)
