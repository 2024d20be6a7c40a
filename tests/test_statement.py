"""The provider's list against the record: what explains what, the sums, and the whole over many pages."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.delivery import (
    LISTED_AT_ONCE,
    Arrival,
    ChannelFinding,
    DecidedBy,
    Delivery,
    Kind,
    Outcome,
    Standing,
    Transaction,
    TransientFailure,
)
from service.reconcile import Span
from service.statement import Auditor, Explanation, Line, Page, Statement, added, explanation, statement
from service.store import SqlStore
from tests.fakes import ACCOUNT, FakePayments, MovedClock, a_delivery, a_transaction


def by(level: DecidedBy, value: str) -> tuple[ChannelFinding, ...]:
    return (ChannelFinding(level=level, value=value),)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_what_is_recorded_is_explained_by_its_outcome(outcome: Outcome) -> None:
    for standing in (Standing.AUTHORIZED, Standing.VOIDED):
        found = explanation(a_transaction(standing=standing), a_delivery(outcome=outcome))
        assert found.value == outcome.value


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, Explanation.UNEXPLAINED),
        ({"findings": ()}, Explanation.UNEXPLAINED),
        ({"standing": Standing.HELD}, Explanation.UNEXPLAINED),
        ({"standing": Standing.UNKNOWN}, Explanation.UNEXPLAINED),
        ({"standing": Standing.VOIDED}, Explanation.ENDED),
        ({"standing": Standing.DECLINED}, Explanation.ENDED),
        ({"standing": Standing.FAILED}, Explanation.ENDED),
        ({"standing": Standing.REFUNDED}, Explanation.ENDED),
        ({"standing": Standing.INITIATED}, Explanation.UNFINISHED),
        ({"product_type": "kravia.invoice_b2b_grouped"}, Explanation.UNEXPLAINED),
        (
            {"product_type": "kravia.invoice_b2b_grouped", "findings": by(DecidedBy.SESSION, "kravia")},
            Explanation.UNEXPLAINED,  # it is recorded, whoever delivers
        ),
        ({"product_type": "payex.creditcard"}, Explanation.NOT_OURS),
        ({"product_type": ""}, Explanation.NOT_OURS),
        ({"findings": by(DecidedBy.SESSION, "kravia")}, Explanation.NOT_OURS),
        ({"findings": by(DecidedBy.TRANSACTION, "merchant")}, Explanation.UNEXPLAINED),
    ],
)
def test_what_is_not_recorded_explains_itself_or_not(changes: dict[str, Any], why: Explanation) -> None:
    assert explanation(a_transaction(**changes), None) is why


@pytest.mark.parametrize(
    ("outcome", "number", "why"),
    [
        (Outcome.OPEN, None, Explanation.EXPECTED),
        (Outcome.OPEN, "A1", Explanation.BILLED),
        (Outcome.SKIPPED, "A1", Explanation.BILLED),  # Kravia delivers it
        (Outcome.SKIPPED, None, Explanation.GROUPED_SKIPPED),
        (Outcome.COMPLETED, "A1", Explanation.CAPTURED),
        (Outcome.CANCELLED, None, Explanation.CANCELLED),
        (Outcome.FAILED, "A1", Explanation.GROUPED_FAILED),
    ],
)
def test_a_grouped_purchase_is_explained_by_how_far_it_is(
    outcome: Outcome, number: str | None, why: Explanation
) -> None:
    listed = a_transaction(product_type="kravia.invoice_b2b_grouped", invoice_number=number)
    assert explanation(listed, a_delivery(kind=Kind.PURCHASE, outcome=outcome)) is why


def test_a_purchase_that_was_voided_has_left_its_group_whatever_it_was() -> None:
    listed = a_transaction(product_type="kravia.invoice_b2b_grouped", invoice_number="A1")
    done = a_delivery(kind=Kind.PURCHASE, outcome=Outcome.COMPLETED)
    assert explanation(replace(listed, standing=Standing.VOIDED), done) is Explanation.CANCELLED
    assert explanation(listed, replace(done, voided_at=listed.read_at)) is Explanation.CANCELLED


def test_sums_are_by_explanation_and_currency() -> None:
    listed = [
        a_transaction("T1", amount=100),
        a_transaction("T2", amount=50),
        a_transaction("T3", amount=7, currency="SEK"),
        a_transaction("T4", amount=None),
        a_transaction("T5", amount=1, standing=Standing.VOIDED),
        a_transaction("T6", amount=9, currency=None),
    ]
    done = [a_delivery(transaction_id=name, outcome=Outcome.COMPLETED) for name in ("T1", "T2", "T3", "T4")]
    found = statement(listed, [*done, a_delivery(transaction_id="elsewhere")])
    assert found.lines == (
        Line(explanation=Explanation.COMPLETED, currency="NOK", count=3, amount=150),
        Line(explanation=Explanation.COMPLETED, currency="SEK", count=1, amount=7),
        Line(explanation=Explanation.ENDED, currency="NOK", count=1, amount=1),
        Line(explanation=Explanation.UNEXPLAINED, currency=None, count=1, amount=9),
    )
    assert [one.id for one in found.unexplained] == ["T6"]
    assert found.count == 6


TRANSACTIONS = st.lists(
    st.builds(
        lambda number, standing, currency, amount, ours: a_transaction(
            f"T{number}",
            standing=standing,
            currency=currency,
            amount=amount,
            product_type="kravia.invoice_b2b" if ours else "kravia.invoice_b2b_grouped",
        ),
        st.integers(0, 30),
        st.sampled_from(Standing),
        st.sampled_from(["NOK", "SEK", None]),
        st.none() | st.integers(0, 10**9),
        st.booleans(),
    ),
    max_size=20,
    unique_by=lambda transaction: transaction.id,
)
DELIVERIES = st.lists(
    st.builds(
        lambda number, outcome: a_delivery(transaction_id=f"T{number}", outcome=outcome),
        st.integers(0, 30),
        st.sampled_from(Outcome),
    ),
    max_size=20,
    unique_by=lambda delivery: delivery.transaction_id,
)


@given(TRANSACTIONS, DELIVERIES, st.integers(0, 20))
def test_nothing_is_lost_or_counted_twice(listed: list[Transaction], known: list[Delivery], cut: int) -> None:
    whole = statement(listed, known)
    assert whole.count == len(listed)
    assert sum(line.amount for line in whole.lines) == sum(one.amount or 0 for one in listed)
    unexplained = sum(line.count for line in whole.lines if line.explanation is Explanation.UNEXPLAINED)
    assert unexplained == len(whole.unexplained)
    assert not {one.id for one in whole.unexplained} & {delivery.transaction_id for delivery in known}
    assert added(statement(listed[:cut], known), statement(listed[cut:], known)) == whole
    assert added(Statement(), whole) == whole


# --- over the record and the provider --------------------------------------------------------------------------------


@pytest.fixture
def payments(clock: MovedClock) -> FakePayments:
    return FakePayments(clock)


async def whole(pages: AsyncIterator[Page]) -> Statement:
    found = Statement()
    async for page in pages:
        found = added(found, page.statement)
    return found


async def receive(store: SqlStore, clock: MovedClock, *transaction_ids: str) -> None:
    for transaction_id in transaction_ids:
        await store.receive(Arrival(transaction_id=transaction_id, account_id=ACCOUNT, at=clock.now()))


async def test_every_page_is_seen(store: SqlStore, clock: MovedClock, payments: FakePayments) -> None:
    names = [f"{ACCOUNT}.{number:04}" for number in range(2 * LISTED_AT_ONCE + 5)]
    for name in names:
        payments.add(a_transaction(name, created_at=clock.now()))
    await receive(store, clock, *names[:-2])
    auditor = Auditor(store=store, payments=payments)
    found = await whole(auditor.pages(Span(since=clock.now() - timedelta(days=1))))
    assert [(line.explanation, line.count) for line in found.lines] == [
        (Explanation.OPEN, len(names) - 2),
        (Explanation.UNEXPLAINED, 2),
    ]
    assert {one.id for one in found.unexplained} == set(names[-2:])
    assert payments.reads == []


async def test_who_delivers_is_asked_for_what_nothing_else_explains(
    store: SqlStore, clock: MovedClock, payments: FakePayments
) -> None:
    """The list does not show what the session says."""
    payments.add(a_transaction(f"{ACCOUNT}.recorded", findings=()))
    payments.add(a_transaction(f"{ACCOUNT}.voided", findings=(), standing=Standing.VOIDED))
    payments.add(a_transaction(f"{ACCOUNT}.theirs", findings=()))
    payments.add(a_transaction(f"{ACCOUNT}.ours"))
    await receive(store, clock, f"{ACCOUNT}.recorded")
    auditor = Auditor(store=store, payments=payments)
    found = await whole(auditor.pages(Span(since=clock.now() - timedelta(days=1))))
    assert payments.reads == [f"{ACCOUNT}.theirs"]
    assert [one.id for one in found.unexplained] == [f"{ACCOUNT}.ours"]
    assert [line.explanation for line in found.lines] == [
        Explanation.OPEN,
        Explanation.NOT_OURS,
        Explanation.ENDED,
        Explanation.UNEXPLAINED,
    ]


async def test_the_end_is_left_out(store: SqlStore, payments: FakePayments) -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    for name, at in (("first", -86400), ("last", -0.001), ("next", 0)):
        payments.add(a_transaction(f"{ACCOUNT}.{name}", created_at=midnight + timedelta(seconds=at)))
    auditor = Auditor(store=store, payments=payments)
    pages = [page async for page in auditor.pages(Span(since=midnight - timedelta(days=1), until=midnight))]
    (page,) = pages
    assert {one.id for one in page.statement.unexplained} == {f"{ACCOUNT}.first", f"{ACCOUNT}.last"}
    assert len(page.created) == 3


async def test_trouble_is_no_statement(store: SqlStore, clock: MovedClock, payments: FakePayments) -> None:
    payments.plan["list_created"] = [TransientFailure("503")]
    with pytest.raises(TransientFailure):
        await whole(Auditor(store=store, payments=payments).pages(Span(since=clock.now())))
