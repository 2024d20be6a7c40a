"""Purchases in the record: written by whoever has them in hand, found by group and invoice, erased with the rest."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import insert, text

from service.delivery import (
    RECONCILE,
    DecidedBy,
    Delivery,
    Entry,
    Interval,
    Kind,
    LeaseLost,
    Members,
    Outcome,
    Purchase,
    Result,
    Schedule,
    Step,
)
from service.store import SqlStore, migrate, open_store, schema
from service.store.engines import engines
from service.store.tables import deliveries
from tests.fakes import MovedClock
from tests.store_values import ACCOUNT, AT, NEVER, arrival, claim_all, claimed, near, only

INVOICE = f"{ACCOUNT}.invoice.A1"


def purchase(number: int | str = 1, **changed: object) -> Purchase:
    plain = Purchase(
        transaction_id=f"{ACCOUNT}.{number}",
        account_id=ACCOUNT,
        group="g1",
        business_name="Nordmann AS",
        organization_number="923456789",
        country="NO",
        customer_reference="Bergliot",
        interval=Interval.MONTHLY,
        period_start=date(2026, 11, 1),
        currency="NOK",
        either_period=False,
        interval_from=DecidedBy.SESSION,
        days_until_due=14,
        days_from=DecidedBy.SETTING,
        purchased_at=AT,
        amount=50000,
        channel="merchant",
        decided_by=DecidedBy.SESSION,
    )
    return replace(plain, **changed)  # type: ignore[arg-type]


async def test_a_purchase_is_written_again_as_it_was_read_last_and_keeps_its_remark(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.record_purchase(claim, purchase())
    await store.remark(claim.delivery.id, "another due date")
    await store.record_purchase(claim, purchase(amount=70000, invoice_id=INVOICE, due_date=date(2026, 12, 15)))
    (member,) = await store.members(Members())
    looked_at = member.purchase.looked_at
    assert looked_at is not None
    expected = purchase(
        amount=70000, invoice_id=INVOICE, due_date=date(2026, 12, 15), remark="another due date", looked_at=looked_at
    )
    assert member.purchase == expected
    assert member.delivery.id == claim.delivery.id


async def test_whoever_has_lost_it_writes_nothing(store: SqlStore, clock: MovedClock) -> None:
    claim = await claimed(store)
    clock.advance(61)
    await claim_all(store, suspects=True)
    with pytest.raises(LeaseLost):
        await store.record_purchase(claim, purchase())
    assert not await store.members(Members())


async def test_purchases_are_found_by_what_they_have_in_common(store: SqlStore) -> None:
    changes: tuple[dict[str, object], ...] = (
        {},
        {"group": "g2", "purchased_at": AT - timedelta(days=1)},
        {"invoice_id": INVOICE, "organization_number": "1", "period_start": date(2026, 10, 1)},
    )
    for number, changed in enumerate(changes):
        claim = await claimed(store, number)
        await store.record_purchase(claim, purchase(number, **changed))
        closed = replace(claim.delivery, outcome=Outcome.COMPLETED, closed_at=AT - timedelta(days=60))
        await store.save(claim, closed if number == 0 else claim.delivery, Schedule(due_in=9e6))

    async def found(chosen: Members) -> list[str]:
        return [member.purchase.transaction_id[-1] for member in await store.members(chosen)]

    assert await found(Members()) == ["1", "0", "2"]  # the oldest purchase first
    assert await found(Members(group="g1")) == ["0", "2"]
    assert await found(Members(invoice_id=INVOICE)) == ["2"]
    assert await found(Members(period_start=date(2026, 11, 1))) == ["1", "0"]
    assert await found(Members(organization_number="1")) == ["2"]
    assert await found(Members(unsettled=True)) == ["1", "2"]
    assert await found(Members(transaction_id=f"{ACCOUNT}.1")) == ["1"]
    assert await found(Members(group="g1", organization_number="1")) == ["2"]


async def test_an_invoice_is_entered_once_and_leaves_its_carriers_transaction_alone(
    store: SqlStore, clock: MovedClock
) -> None:
    claim = await claimed(store)
    carrier = replace(claim.delivery, kind=Kind.PURCHASE)
    await store.enter_invoice(INVOICE, carrier, AT)
    await store.enter_invoice(INVOICE, replace(carrier, transaction_id="another"), AT + timedelta(days=1))
    (invoice,) = [found for found in await store.listing() if found.id == INVOICE]
    assert (invoice.kind, invoice.transaction_id) == (Kind.GROUPED, claim.delivery.id)
    # By the database's clock, as the looks at its purchases are: the two are compared.
    assert near(invoice.received_at, clock.now())
    assert [found.id for found in await store.known([claim.delivery.id])] == [claim.delivery.id]
    (due,) = await claim_all(store)
    assert due.delivery.id == INVOICE
    await store.save(due, replace(due.delivery, amount=150000, currency="NOK"), NEVER_DUE)
    assert (await invoice_of(store)).amount == 150000
    assert [line.step for line in await store.history(INVOICE)] == [Step.RECEIVE]


NEVER_DUE = Schedule(due_in=9e6)


async def invoice_of(store: SqlStore) -> Delivery:
    return next(found for found in await store.find(INVOICE) if found.id == INVOICE)


async def test_a_purchase_that_is_erased_tells_nobody_who_bought(store: SqlStore) -> None:
    claim = await claimed(store)
    await store.record_purchase(claim, purchase(merchant_reference="Nordmann-7"))
    await store.remark(claim.delivery.id, "Nordmann AS was billed another name")
    await store.save(claim, replace(claim.delivery, outcome=Outcome.COMPLETED, closed_at=AT), NEVER)
    by = Entry(at=AT, step=Step.OPERATOR, result=Result.ACCEPTED, detail="erased")
    assert await store.erase([claim.delivery.id], by) == (claim.delivery.id,)
    (member,) = await store.members(Members())
    for word in ("Nordmann", "923456789", "Bergliot"):
        assert word not in repr(member.purchase)
    assert (member.purchase.group, member.purchase.amount) == ("g1", 50000)


async def test_what_earlier_releases_skipped_is_looked_at_again(empty_database_url: str, clock: MovedClock) -> None:
    opened = engines(empty_database_url)
    if opened.file is not None:
        opened.file.parent.mkdir(parents=True, exist_ok=True)
    with opened.writer.connect() as connection, connection.begin():
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(schema.__file__).parent / "migrations"))
        command.upgrade(config, "0003")
        schema._record_birth(connection)
        for number, product in enumerate(("kravia.invoice_b2b_grouped", "kravia.invoice_b2b")):
            row: dict[str, object] = {
                "id": f"{ACCOUNT}.{number}",
                "account_id": ACCOUNT,
                "transaction_id": f"{ACCOUNT}.{number}",
            }
            row |= {"received_at": AT, "kind": "invoice", "outcome": "skipped", "lane": "email", "closed_at": AT}
            connection.execute(insert(deliveries), row | {"product_type": product, "reason": "not delivered here"})
            connection.execute(
                text("INSERT INTO transactions (id, delivery_id, account_id, received_at) VALUES (:id, :id, :a, 0)"),
                {"id": f"{ACCOUNT}.{number}", "a": ACCOUNT},
            )
    opened.dispose()
    migrate(empty_database_url)
    async with open_store(empty_database_url, clock=clock) as store:
        assert (await only(store, 1)).outcome is Outcome.SKIPPED
        (again,) = await claim_all(store)
        assert (again.delivery.id, again.delivery.outcome) == (f"{ACCOUNT}.0", Outcome.OPEN)
        assert (again.delivery.reason, again.delivery.closed_at) == (None, None)
        await store.receive(arrival(2))


async def test_what_an_earlier_release_skips_after_the_upgrade_is_opened_again(store: SqlStore) -> None:
    grouped = "kravia.invoice_b2b_grouped"
    old = f"{grouped} is not delivered here"
    for number, (product, reason) in enumerate(
        [
            (grouped, old),
            ("kravia.invoice_b2b", "kravia.invoice_b2b is not delivered here"),
            (grouped, "never completed by the customer"),
        ]
    ):
        await store.receive(arrival(number))
        (claim,) = await claim_all(store)
        skipped = replace(claim.delivery, outcome=Outcome.SKIPPED, product_type=product, reason=reason, closed_at=AT)
        await store.save(claim, skipped, NEVER_DUE)
    assert await store.adopt_skipped("T00000000") == 0
    assert await store.adopt_skipped(ACCOUNT) == 1
    (again,) = await claim_all(store)
    assert (again.delivery.id, again.delivery.outcome) == (f"{ACCOUNT}.0", Outcome.OPEN)
    assert again.delivery.source == RECONCILE
    # One that is ours by now, and billed by Kravia, ends as skipped for good.
    await store.record_purchase(again, purchase(0))
    await store.save(again, replace(again.delivery, outcome=Outcome.SKIPPED, reason=old, closed_at=AT), NEVER_DUE)
    assert await store.adopt_skipped(ACCOUNT) == 0
