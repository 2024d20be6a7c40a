"""What a person should know, as the record tells it."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Row,
    Select,
    Text,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    union_all,
)

from service.delivery import (
    HAD_IT,
    HELD,
    NOT_BILLED,
    PROVIDER_LANE,
    RECONCILE,
    Calls,
    Case,
    Concern,
    Condition,
    Outcome,
    Settled,
)
from service.store.clock import database_now
from service.store.tables import Instant, Words, deliveries, jobs, microseconds, pauses, purchases, sends

SHOWN = 20
"""How many cases of a condition are told by name."""
_A_WHILE = timedelta(hours=1)
_OVERDUE = timedelta(minutes=5)
_SEEN_FOR = timedelta(days=3)
_STOPPED = deliveries.c.outcome == Outcome.FAILED.value
_EITHER = deliveries.c.outcome.in_([Outcome.OPEN.value, Outcome.FAILED.value])
ACCOUNT: ColumnElement[str] = bindparam("account", type_=Words)


def ago(length: timedelta) -> ColumnElement[datetime]:
    """Return the expression for the database's time that long before."""
    return database_now(plus=literal(-microseconds(length), BigInteger))


def _in_doubt() -> ColumnElement[bool]:
    of_round = and_(sends.c.delivery_id == deliveries.c.id, sends.c.round == deliveries.c.round)
    in_doubt = [Settled.UNCONFIRMED.value, Settled.OPEN.value]  # open: of who died, and nobody has looked since
    doubtful = exists().where(of_round, sends.c.outcome.in_(in_doubt))
    accepted = exists().where(of_round, sends.c.outcome == Settled.ACCEPTED.value)
    stated = func.coalesce(deliveries.c.stated_round, -1) == deliveries.c.round
    return and_(deliveries.c.attempt > 0, not_(stated), doubtful, not_(accepted))


def _bounced() -> ColumnElement[bool]:
    of_round = and_(sends.c.delivery_id == deliveries.c.id, sends.c.round == deliveries.c.round)
    came_back = exists().where(of_round, sends.c.outcome == Settled.BOUNCED.value)
    accepted = exists().where(of_round, sends.c.outcome == Settled.ACCEPTED.value)
    stated = func.coalesce(deliveries.c.stated_round, -1) == deliveries.c.round
    return and_(deliveries.c.attempt > 0, not_(stated), came_back, not_(accepted))


def _overdue() -> ColumnElement[bool]:
    paused = exists().where(
        pauses.c.account_id == deliveries.c.account_id, pauses.c.key.in_([deliveries.c.lane, PROVIDER_LANE])
    )
    free = or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now())
    return and_(deliveries.c.due_at < ago(_OVERDUE), free, not_(paused))


def _unfinished() -> Select[Any]:
    """Return the open and failed deliveries, each with the first condition that fits; most of the open have none."""
    half_sent = and_(deliveries.c.delivered_at.is_not(None), deliveries.c.captured_known_at.is_(None))
    half_captured = and_(deliveries.c.captured_known_at.is_not(None), deliveries.c.delivered_at.is_(None))
    long_captured = or_(_STOPPED, deliveries.c.captured_known_at < ago(_A_WHILE))
    long_sent = or_(_STOPPED, deliveries.c.delivered_at < ago(_A_WHILE))
    condition = case(
        (and_(_STOPPED, deliveries.c.reason.like(f"{HELD}%")), Condition.HELD.value),
        (and_(_STOPPED, _in_doubt()), Condition.UNCONFIRMED.value),
        (_bounced(), Condition.BOUNCED.value),
        (and_(half_captured, long_captured), Condition.UNDELIVERED.value),
        (and_(half_sent, long_sent), Condition.UNCAPTURED.value),
        (_STOPPED, Condition.FAILED.value),
        (_in_doubt(), Condition.IN_DOUBT.value),
        (_overdue(), Condition.OVERDUE.value),
    )
    since = case(
        (_STOPPED, deliveries.c.closed_at),
        (half_sent, deliveries.c.delivered_at),
        (half_captured, deliveries.c.captured_known_at),
        else_=deliveries.c.due_at,
    )
    return _cases(condition, since).where(_EITHER)


def _voided(within: timedelta) -> tuple[Select[Any], Select[Any]]:
    """Return those that ended at the provider after the customer had the invoice: stopped by it, or complete before."""
    stopped = and_(
        deliveries.c.outcome == Outcome.CANCELLED.value,
        deliveries.c.closed_at >= ago(within),
        or_(
            deliveries.c.reason.like(f"%{HAD_IT}%"),
            and_(deliveries.c.voided_at.is_not(None), deliveries.c.delivered_at.is_not(None)),
        ),
    )
    complete = and_(
        deliveries.c.outcome == Outcome.COMPLETED.value,
        deliveries.c.voided_at >= ago(within),
        deliveries.c.delivered_at.is_not(None),
    )
    name = literal(Condition.VOIDED.value, Text)
    return (
        _cases(name, deliveries.c.closed_at).where(stopped),
        _cases(name, deliveries.c.voided_at).where(complete),
    )


def _nobodys() -> Select[Any]:
    return _cases(literal(Condition.NOBODY.value, Text), deliveries.c.closed_at).where(
        deliveries.c.outcome == Outcome.SKIPPED.value,
        deliveries.c.received_at >= ago(_SEEN_FOR),
        deliveries.c.reason.like("nobody delivers this invoice%"),
    )


def _groups(within: timedelta) -> Select[Any]:
    """Return a row for each group of purchases with a remark: what Kravia billed otherwise, or not at all."""
    p, d = purchases.c, deliveries.c
    not_billed = func.min(case((p.remark.like(f"{NOT_BILLED}%"), 0), else_=1)) == 0
    return (
        select(
            case((not_billed, Condition.NOT_BILLED.value), else_=Condition.GROUP_DIFFERS.value).label("name"),
            p.group.label("subject"),
            func.min(p.remark).label("reason"),
            func.max(d.closed_at).label("since"),
            func.max(p.invoice_number).label("invoice_number"),
            cast(func.sum(p.amount), BigInteger).label("amount"),
            func.max(p.currency).label("currency"),
            null().label("paused_by"),
        )
        .join_from(purchases, deliveries, d.id == p.transaction_id)
        .where(
            p.account_id == ACCOUNT,
            p.remark.is_not(None),
            d.voided_at.is_(None),
            or_(
                d.outcome == Outcome.OPEN.value,
                and_(d.outcome != Outcome.CANCELLED.value, d.closed_at >= ago(within)),
            ),
        )
        .group_by(p.group)
    )


def _cases(condition: ColumnElement[Any], since: ColumnElement[Any]) -> Select[Any]:
    d = deliveries.c
    return select(
        condition.label("name"),
        d.id.label("subject"),
        d.reason,
        since.label("since"),
        d.invoice_number,
        d.amount,
        d.currency,
        null().label("paused_by"),
    ).where(d.account_id == ACCOUNT)


def other(name: Condition, *columns: ColumnElement[Any]) -> Select[Any]:
    """Return a row that is about no delivery: its subject, reason, since when and by whom."""
    subject, reason, since, by = columns
    nothing = (null().label(label) for label in ("invoice_number", "amount", "currency"))
    return select(
        literal(name.value, Text).label("name"),
        subject.label("subject"),
        reason.label("reason"),
        since.label("since"),
        *nothing,
        by.label("paused_by"),
    )


def _paused() -> Select[Any]:
    columns = (pauses.c.key, pauses.c.reason, pauses.c.since, pauses.c.paused_by)
    return other(Condition.PAUSED, *columns).where(pauses.c.account_id == ACCOUNT)


def _gone() -> Select[Any]:
    reason = literal("the account's webhook subscription is not there any more", Text)
    found = other(Condition.SUBSCRIPTION, literal("", Text), reason, jobs.c.last_run_at, null())
    return found.where(jobs.c.name == ACCOUNT.concat(":subscription"), jobs.c.note == "gone")


def standing(within: timedelta) -> tuple[Select[Any], ...]:
    """Return the rows, in several parts, of all that is in a condition; of what passes, that of that length of time."""
    return (_unfinished(), *_voided(within), _nobodys(), _paused(), _gone(), _groups(within))


def newest(of: Any, *, partition: ColumnElement[Any], order: ColumnElement[Any]) -> Select[Any]:
    """Return rows with how many there are of their kind, and only the first of each kind."""
    count = func.count().over(partition_by=partition).label("number")
    place = func.row_number().over(partition_by=partition, order_by=(order, of.c.subject)).label("place")
    ranked = select(of, count, place).where(of.c.name.is_not(None)).subquery()
    return select(ranked).where(ranked.c.place <= SHOWN).order_by(ranked.c.name, ranked.c.place)


def _concerns() -> Select[Any]:
    found = union_all(*standing(_SEEN_FOR)).subquery()
    return newest(found, partition=found.c.name, order=found.c.since.desc())


_CONCERNS = _concerns()


def concerns(connection: Connection, account_id: str, shift: int) -> tuple[Concern, ...]:
    """As `Store.concerns`."""
    rows = connection.execute(_CONCERNS, {"account": account_id, "shift": shift}).all()
    return tuple(concern_of(list(of)) for _, of in groupby(rows, key=lambda row: row.name))


def concern_of(rows: Sequence[Row[Any]]) -> Concern:
    """Return the value of the rows that `newest` kept of one condition."""
    return Concern(condition=Condition(rows[0].name), count=rows[0].number, cases=tuple(map(_case, rows)))


def _case(row: Row[Any]) -> Case:
    return Case(
        subject=row.subject,
        reason=row.reason,
        since=row.since,
        invoice_number=row.invoice_number,
        amount=row.amount,
        currency=row.currency,
        by=row.paused_by,
    )


_BY_CALLS = and_(deliveries.c.account_id == ACCOUNT, deliveries.c.source != RECONCILE)
_NEWEST = (deliveries.c.received_at.desc(), deliveries.c.id)
_LAST_CALL = select(deliveries.c.received_at).where(_BY_CALLS).order_by(*_NEWEST).limit(1)
_MISSED = select(func.count()).where(
    deliveries.c.received_at > bindparam("since", type_=Instant),
    deliveries.c.account_id == ACCOUNT,
    deliveries.c.source == RECONCILE,
)
_BIRTH = select(jobs.c.last_run_at).where(jobs.c.name == "birth")


def calls(connection: Connection, account_id: str) -> Calls:
    """As `Store.calls`."""
    born_at: datetime = connection.execute(_BIRTH).scalar_one()
    last_at = connection.execute(_LAST_CALL, {"account": account_id}).scalar_one_or_none()
    missed = connection.execute(_MISSED, {"account": account_id, "since": last_at or born_at}).scalar_one()
    return Calls(last_at=last_at or born_at, missed=missed)
