"""What people have been told of what they should know; each way of telling them gets everything, by itself."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    union_all,
    update,
)

from service.delivery import Concern, News
from service.store.clock import database_now
from service.store.concerns import ACCOUNT, ago, concern_of, newest, other, standing
from service.store.tables import Instant, Words, alerts, deliveries

_TOLD_WITHIN = timedelta(days=30)  # a void that was learned of late is told all the same
_REMEMBERED = timedelta(days=1)  # what has gone away, so that what comes and goes is told seldom


def _urgent(urgent: Sequence[Concern]) -> Any:
    """Return what is to be told at once: of these conditions, what the record tells and what came with them."""
    given = [
        other(
            concern.condition,
            literal(one.subject, Words),
            literal(one.reason, Words),
            literal(one.since, Instant),
            null(),
        )
        for concern in urgent
        for one in concern.cases
    ]
    found = union_all(*standing(_TOLD_WITHIN), *given).subquery()
    names = [concern.condition.value for concern in urgent]
    return select(found).where(found.c.name.in_(names), found.c.paused_by.is_(None)).cte("urgent")


def _row_of(stands: Any) -> ColumnElement[bool]:
    """Return whether a row of `alerts` is about what stands."""
    return and_(_OF_WAY, alerts.c.name == stands.c.name, alerts.c.subject == stands.c.subject)


_OF_WAY = and_(alerts.c.account_id == ACCOUNT, alerts.c.way == bindparam("by_way", type_=Words))
_UNTOLD = and_(alerts.c.gone_at.is_(None), or_(alerts.c.told_at.is_(None), alerts.c.told_at < alerts.c.first_at))


def out_of_date(connection: Connection, account_id: str, way: str, urgent: Sequence[Concern], shift: int) -> bool:
    """Tell whether anything has come or gone since `bring_up_to_date`; so that a quiet minute writes nothing."""
    stands = _urgent(urgent)
    noted = exists().where(_row_of(stands), alerts.c.gone_at.is_(None))
    come = select(stands.c.name).where(not_(noted))
    gone = select(alerts.c.name).where(_OF_WAY, alerts.c.gone_at.is_(None), not_(exists().where(_row_of(stands))))
    about = {"account": account_id, "by_way": way, "shift": shift}
    return connection.execute(union_all(come, gone).limit(1), about).first() is not None


def bring_up_to_date(connection: Connection, account_id: str, way: str, urgent: Sequence[Concern], shift: int) -> None:
    """Note what has come, what has come back and what has gone."""
    about = {"account": account_id, "by_way": way, "shift": shift}
    stands = _urgent(urgent)
    still = exists().where(_row_of(stands))
    back = update(alerts).where(_OF_WAY, alerts.c.gone_at.is_not(None), still)
    connection.execute(back.values(first_at=database_now(), gone_at=None), about)
    columns = (ACCOUNT, bindparam("by_way", type_=Words), stands.c.name, stands.c.subject, stands.c.reason)
    new = select(*columns, database_now()).where(not_(exists().where(_row_of(stands))))
    names = ("account_id", "way", "name", "subject", "detail", "first_at")
    connection.execute(insert(alerts).from_select(names, new), about)
    gone = update(alerts).where(_OF_WAY, alerts.c.gone_at.is_(None), not_(still))
    connection.execute(gone.values(gone_at=database_now()), about)
    connection.execute(delete(alerts).where(_OF_WAY, alerts.c.gone_at < ago(_REMEMBERED)), about)


def _untold() -> Select[Any]:
    d = deliveries.c
    untold = (
        select(
            alerts.c.name,
            alerts.c.subject,
            alerts.c.detail.label("reason"),
            func.coalesce(d.closed_at, d.delivered_at, alerts.c.first_at).label("since"),
            d.invoice_number,
            d.amount,
            d.currency,
            null().label("paused_by"),
            alerts.c.first_at,
        )
        .select_from(alerts.outerjoin(deliveries, d.id == alerts.c.subject))
        .where(_OF_WAY, _UNTOLD)
        .subquery()
    )
    return newest(untold, partition=untold.c.name, order=untold.c.first_at)


_UNTOLD_CASES = _untold()
_LAST_TOLD = select(alerts.c.name, func.max(alerts.c.told_at)).where(_OF_WAY).group_by(alerts.c.name)
_LATEST = select(alerts.c.name, func.max(alerts.c.first_at)).where(_OF_WAY, _UNTOLD).group_by(alerts.c.name)


def untold(connection: Connection, account_id: str, way: str) -> tuple[News, ...]:
    """Return what is noted and not told."""
    about = {"account": account_id, "by_way": way}
    rows = connection.execute(_UNTOLD_CASES, about).all()
    if not rows:
        return ()
    told_at, latest = (_by_name(connection.execute(query, about)) for query in (_LAST_TOLD, _LATEST))
    return tuple(
        News(concern=concern_of(list(of)), latest=latest[name], told_at=told_at[name])
        for name, of in groupby(rows, key=lambda row: row.name)
    )


def _by_name(rows: Iterable[Any]) -> dict[str, Any]:
    return {row[0]: row[1] for row in rows}


def told(connection: Connection, account_id: str, way: str, upto: datetime, shift: int) -> None:
    """As `Store.told`."""
    until = bindparam("upto", type_=Instant)
    now = update(alerts).where(_OF_WAY, _UNTOLD, alerts.c.first_at <= until).values(told_at=database_now())
    connection.execute(now, {"account": account_id, "by_way": way, "upto": upto, "shift": shift})
