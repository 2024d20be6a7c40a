"""What is read without writing: lists, one delivery's record, and the figures."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    func,
    literal,
    or_,
    select,
    union_all,
)

from service.delivery import Capture, Counts, Delivery, Dossier, Entry, Filter, Link, Outcome, Send
from service.store.clock import database_now
from service.store.errors import Unknown
from service.store.rows import (
    CAPTURE_COLUMNS,
    DELIVERY_COLUMNS,
    ENTRY_COLUMNS,
    HELD_COLUMNS,
    SEND_COLUMNS,
    Held,
    Intent,
    capture_of,
    delivery_of,
    entry_of,
    held_of,
    send_of,
)
from service.store.tables import captures, deliveries, history, jobs, microseconds, sends, transactions

_OVERDUE = timedelta(minutes=5)
_NEWEST = (deliveries.c.received_at.desc(), deliveries.c.id)

_AT_ONCE = 500
_KNOWN = select(*DELIVERY_COLUMNS).where(
    deliveries.c.id.in_(
        select(transactions.c.delivery_id).where(transactions.c.id.in_(bindparam("ids", expanding=True)))
    )
)
_BIRTH = select(jobs.c.last_run_at).where(jobs.c.name == "birth")
_HISTORY = select(*ENTRY_COLUMNS).where(history.c.delivery_id == bindparam("id")).order_by(history.c.id)
_LINKS = (
    select(*ENTRY_COLUMNS, history.c.salt, history.c.detail_hash, history.c.hash)
    .where(history.c.delivery_id == bindparam("id"))
    .order_by(history.c.id)
)
_HELD = select(*HELD_COLUMNS).where(deliveries.c.id == bindparam("id"))
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


def listing(connection: Connection, chosen: Filter, limit: int | None, after: Delivery | None) -> tuple[Delivery, ...]:
    wanted = _wanted(chosen, after)
    outcomes = _outcomes(chosen)
    # An index has each outcome's deliveries in order; of several, each gives its page, and those few are sorted.
    pages = [_page(wanted, deliveries.c.outcome == outcome, limit=limit) for outcome in outcomes]
    if len(pages) > 1:
        every = union_all(*(select(page.subquery()) for page in pages)).subquery()
        statement = select(every).order_by(every.c.received_at.desc(), every.c.id).limit(limit)
    else:
        statement = pages[0] if pages else _page(wanted, limit=limit)
    if connection.dialect.name == "postgresql":
        # Where it guesses that few match, it would read all and sort, for every page again; an index has the order.
        connection.exec_driver_sql("SELECT set_config('enable_sort', 'off', true)")
    return tuple(map(delivery_of, connection.execute(statement)))


def ids(connection: Connection, chosen: Filter) -> tuple[tuple[str, Outcome], ...]:
    wanted, outcomes = _wanted(chosen), _outcomes(chosen)
    if outcomes:
        wanted.append(deliveries.c.outcome.in_(outcomes))
    statement = select(deliveries.c.id, deliveries.c.outcome).where(*wanted).order_by(*_NEWEST)
    return tuple((name, Outcome(outcome)) for name, outcome in connection.execute(statement))


def _page(wanted: Sequence[ColumnElement[bool]], *more: ColumnElement[bool], limit: int | None) -> Select[Any]:
    return select(*DELIVERY_COLUMNS).where(*wanted, *more).order_by(*_NEWEST).limit(limit)


def _outcomes(chosen: Filter) -> list[str]:
    """Return the outcomes that narrow a search: none when all are named."""
    return [] if set(chosen.outcomes) >= set(Outcome) else sorted(outcome.value for outcome in set(chosen.outcomes))


def _wanted(chosen: Filter, last: Delivery | None = None) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter, but that of the outcomes, and for what comes after `last`.

    Of two upper bounds only the lower: SQLite would search an index by either, and might read through all pages before.
    """
    columns = deliveries.c
    conditions: list[ColumnElement[bool]] = []
    if last is not None and (chosen.until is None or last.received_at < chosen.until):
        conditions.append(columns.received_at <= last.received_at)
        conditions.append(or_(columns.received_at < last.received_at, columns.id > last.id))
    elif chosen.until is not None:
        conditions.append(columns.received_at < chosen.until)
    if chosen.reason is not None:
        conditions.append(columns.reason.icontains(chosen.reason, autoescape=True))
    if chosen.channel is not None:
        conditions.append(columns.channel == chosen.channel)
    if chosen.since is not None:
        conditions.append(columns.received_at >= chosen.since)
    return conditions


def known(connection: Connection, transaction_ids: Sequence[str]) -> tuple[Delivery, ...]:
    """Return the deliveries of these transactions; in batches, for databases take only so many parameters."""
    found: list[Delivery] = []
    for start in range(0, len(transaction_ids), _AT_ONCE):
        ids = list(transaction_ids[start : start + _AT_ONCE])
        found += map(delivery_of, connection.execute(_KNOWN, {"ids": ids}))
    return tuple(found)


def born_at(connection: Connection) -> datetime:
    born: datetime = connection.execute(_BIRTH).scalar_one()
    return born


def dossier(connection: Connection, delivery_id: str) -> Dossier:
    """Raises `Unknown`. Read again until nothing changed meanwhile, for a read is one statement's worth of a moment."""
    before = _held(connection, delivery_id)
    while True:
        rows = connection.execute(_LINKS, {"id": delivery_id}).all()
        found = Dossier(
            delivery=before.delivery,
            chain=before.chain,
            links=tuple(
                Link(entry=entry_of(row[:-3]), salt=row.salt, detail_hash=row.detail_hash, hash=row.hash)
                for row in rows
            ),
            sends=tuple(intent.value for intent in sends_among(connection, [delivery_id])),
            captures=tuple(intent.value for intent in captures_among(connection, [delivery_id])),
        )
        after = _held(connection, delivery_id)
        if after == before:
            return found
        before = after


def _held(connection: Connection, delivery_id: str) -> Held:
    row = connection.execute(_HELD, {"id": delivery_id}).one_or_none()
    if row is None:
        raise Unknown(delivery_id)
    return held_of(row)


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
