"""Purchases that are billed together: writing what was read of one, and finding those of a group, invoice or period."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Row, exists, func, literal, or_, select, update

from service.delivery import (
    PROVIDER_LANE,
    RECONCILE,
    Claim,
    DecidedBy,
    Delivery,
    Entry,
    Interval,
    Kind,
    LeaseLost,
    Member,
    Members,
    Outcome,
    Purchase,
    Result,
    Step,
)
from service.store.book import Book
from service.store.clock import database_now
from service.store.rows import DELIVERY_COLUMNS, Held, delivery_of
from service.store.tables import deliveries, microseconds, purchases, upsert

_SETTLED_FOR = timedelta(days=40)
_AT_ONCE = 500
_GROUPED = "kravia.invoice_b2b_grouped"
_NAMES = tuple(field.name for field in fields(Purchase))
_COLUMNS = [purchases.c[name] for name in _NAMES]
_SELECT = (
    select(*DELIVERY_COLUMNS, *_COLUMNS)
    .join_from(purchases, deliveries, deliveries.c.id == purchases.c.transaction_id)
    .order_by(purchases.c.purchased_at, purchases.c.transaction_id)
)


def record(book: Book, claim: Claim, purchase: Purchase) -> None:
    held = book.get(claim.delivery.id)
    if held is None or held.lease_token != claim.token:
        raise LeaseLost
    values = {name: getattr(purchase, name) for name in _NAMES} | {"looked_at": book.now}
    del values["remark"]
    statement = upsert(book.connection, purchases).values(values)
    changed = {name: statement.excluded[name] for name in values if name != "transaction_id"}
    book.connection.execute(statement.on_conflict_do_update(index_elements=["transaction_id"], set_=changed))


def enter_invoice(book: Book, invoice_id: str, carrier: Delivery, at: datetime) -> None:
    if book.get(invoice_id) is not None:
        return
    delivery = Delivery(
        id=invoice_id,
        account_id=carrier.account_id,
        transaction_id=carrier.transaction_id,
        received_at=book.now,  # compared with when its purchases were looked at, by the same clock
        kind=Kind.GROUPED,
        source=carrier.source,
        due_at=book.now,
    )
    told = f"the consolidated invoice shows on {carrier.transaction_id}"
    entry = Entry(at=at, step=Step.RECEIVE, result=Result.ACCEPTED, detail=told)
    book.enter(Held(delivery=delivery), entry)


def adopt_skipped(connection: Connection, account_id: str, shift: int) -> int:
    """Do for what was skipped since what the migration did; only their own words tell earlier releases' skipping."""
    skipped = (
        select(deliveries.c.id)
        .where(
            deliveries.c.account_id == account_id,
            deliveries.c.outcome == Outcome.SKIPPED,
            deliveries.c.product_type == _GROUPED,
            deliveries.c.reason == f"{_GROUPED} is not delivered here",
            deliveries.c.erased_at.is_(None),
            ~exists().where(purchases.c.transaction_id == deliveries.c.id),
        )
        .order_by(deliveries.c.id)
        .with_for_update(key_share=True, skip_locked=True)
    )
    ids = connection.execute(skipped).scalars().all()
    again: dict[str, Any] = {
        "outcome": Outcome.OPEN,
        "reason": None,
        "lane": PROVIDER_LANE,
        "closed_at": None,
        "postponed": 0,
    }
    again |= {"due_at": database_now(), "source": RECONCILE, "wakes": deliveries.c.wakes + 1}
    for start in range(0, len(ids), _AT_ONCE):
        these = deliveries.c.id.in_(ids[start : start + _AT_ONCE])
        connection.execute(update(deliveries).where(these).values(again), {"shift": shift})
    return len(ids)


def members(connection: Connection, chosen: Members, shift: int) -> tuple[Member, ...]:
    statement = _SELECT.where(*_wanted(chosen))
    return tuple(map(_member, connection.execute(statement, {"shift": shift} if chosen.unsettled else {})))


def unread(connection: Connection, account_id: str, before: datetime) -> int:
    """As `Store.unread`."""
    never = select(func.count()).where(
        deliveries.c.account_id == account_id,
        deliveries.c.outcome == Outcome.OPEN.value,
        deliveries.c.product_type.is_(None),
        deliveries.c.received_at < before,
    )
    return connection.execute(never).scalar_one()


def remark(connection: Connection, transaction_id: str, words: str | None) -> None:
    connection.execute(update(purchases).where(purchases.c.transaction_id == transaction_id).values(remark=words))


def _wanted(chosen: Members) -> list[ColumnElement[bool]]:
    columns = purchases.c
    wanted = [
        columns[name] == value
        for name in ("group", "invoice_id", "period_start", "organization_number", "transaction_id")
        if (value := getattr(chosen, name)) is not None
    ]
    if chosen.unsettled:
        lately = database_now(plus=literal(-microseconds(_SETTLED_FOR), BigInteger))
        wanted.append(or_(deliveries.c.outcome == Outcome.OPEN.value, deliveries.c.closed_at > lately))
    return wanted


def _member(row: Row[Any] | Sequence[Any]) -> Member:
    values = dict(zip(_NAMES, row[-len(_NAMES) :], strict=True))
    values |= {
        "interval": Interval(values["interval"]),
        "interval_from": DecidedBy(values["interval_from"]),
        "days_from": DecidedBy(values["days_from"]),
        "decided_by": DecidedBy(values["decided_by"]),
    }
    return Member(purchase=Purchase(**values), delivery=delivery_of(row))
