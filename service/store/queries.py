"""What is read without writing: lists, one delivery's record, and the figures."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import BigInteger, BindParameter, Connection, bindparam, func, literal, or_, select, union

from service.delivery import Capture, Counts, Delivery, Entry, Outcome, Send
from service.store.clock import database_now
from service.store.rows import (
    CAPTURE_COLUMNS,
    DELIVERY_COLUMNS,
    ENTRY_COLUMNS,
    SEND_COLUMNS,
    Intent,
    capture_of,
    delivery_of,
    entry_of,
    send_of,
)
from service.store.tables import captures, deliveries, history, microseconds, sends, transactions

_OVERDUE = timedelta(minutes=5)
_NEWEST = (deliveries.c.received_at.desc(), deliveries.c.id)

_FIND = (
    select(*DELIVERY_COLUMNS)
    .where(
        deliveries.c.id.in_(
            # One search of an index each; a single condition with OR would read the whole table.
            union(
                select(transactions.c.delivery_id).where(transactions.c.id == bindparam("reference")),
                *(
                    select(deliveries.c.id).where(deliveries.c[name] == bindparam("reference"))
                    for name in ("id", "transaction_id", "invoice_number", "merchant_reference")
                ),
            )
        )
    )
    .order_by(*_NEWEST)
)
_HISTORY = select(*ENTRY_COLUMNS).where(history.c.delivery_id == bindparam("id")).order_by(history.c.id)
_AMONG: BindParameter[str] = bindparam("ids", expanding=True)
_SENDS = select(*SEND_COLUMNS).where(sends.c.delivery_id.in_(_AMONG)).order_by(sends.c.ordinal, sends.c.id)
_CAPTURES = (
    select(*CAPTURE_COLUMNS).where(captures.c.delivery_id.in_(_AMONG)).order_by(captures.c.ordinal, captures.c.id)
)
_OUTCOMES = select(deliveries.c.outcome, func.count()).group_by(deliveries.c.outcome)
_BEFORE_NOW = literal(-microseconds(_OVERDUE), BigInteger)
_OPEN_ONES = select(
    func.count().filter(deliveries.c.due_at <= database_now()),
    func.count().filter(
        deliveries.c.due_at < database_now(plus=_BEFORE_NOW),
        or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now()),
    ),
    func.min(deliveries.c.received_at),
    database_now(),
).where(deliveries.c.outcome == Outcome.OPEN.value)


def find(connection: Connection, reference: str) -> tuple[Delivery, ...]:
    return tuple(map(delivery_of, connection.execute(_FIND, {"reference": reference})))


def listing(connection: Connection, outcomes: Sequence[Outcome], limit: int | None) -> tuple[Delivery, ...]:
    statement = select(*DELIVERY_COLUMNS).order_by(*_NEWEST).limit(limit)
    if outcomes:
        statement = statement.where(deliveries.c.outcome.in_([outcome.value for outcome in outcomes]))
    return tuple(map(delivery_of, connection.execute(statement)))


def entries(connection: Connection, delivery_id: str) -> tuple[Entry, ...]:
    return tuple(map(entry_of, connection.execute(_HISTORY, {"id": delivery_id})))


def sends_among(connection: Connection, ids: Sequence[str]) -> list[Intent[Send]]:
    """Return the sends of these deliveries, oldest first."""
    return list(map(send_of, connection.execute(_SENDS, {"ids": ids}))) if ids else []


def captures_among(connection: Connection, ids: Sequence[str]) -> list[Intent[Capture]]:
    """Return the captures of these deliveries, oldest first."""
    return list(map(capture_of, connection.execute(_CAPTURES, {"ids": ids}))) if ids else []


def counts(connection: Connection, shift: int) -> Counts:
    outcomes = tuple((Outcome(outcome), number) for outcome, number in connection.execute(_OUTCOMES))
    due, overdue, oldest, now = connection.execute(_OPEN_ONES, {"shift": shift}).one()
    age = None if oldest is None else max(0.0, (now - oldest).total_seconds())
    return Counts(outcomes=tuple(sorted(outcomes)), due=due, overdue=overdue, oldest_open_age=age)
