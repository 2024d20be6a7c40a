"""Who may send when over a channel with a pace, and what has waited too long for one: shared by all processes."""

from datetime import datetime, timedelta

from sqlalchemy import BigInteger, Connection, bindparam, case, literal, or_, select, type_coerce, update

from service.delivery import PROVIDER_LANE, Pace
from service.store.clock import database_now, now_of
from service.store.tables import Instant, deliveries, microseconds, paces, upsert


def take_turn(connection: Connection, account_id: str, lane: str, pace: Pace, shift: int) -> float:
    """As `Store.take_turn`: evenly spaced, so that no relay sees more than its share of any span of time."""
    step, now = timedelta(seconds=pace.seconds / pace.count), now_of(connection, shift)
    row = upsert(connection, paces).values(account_id=account_id, lane=lane, next_at=now + step)
    free = type_coerce(case((paces.c.next_at > now, paces.c.next_at), else_=literal(now, Instant)), BigInteger)
    later = type_coerce(free + literal(microseconds(step), BigInteger), Instant)
    taken = row.on_conflict_do_update(index_elements=["account_id", "lane"], set_={"next_at": later})
    next_at: datetime = connection.execute(taken.returning(paces.c.next_at)).scalar_one()
    return max(0.0, (next_at - step - now).total_seconds())


def fall_from(connection: Connection, account_id: str, lane: str, after: float, shift: int) -> int:
    """As `Store.fall_from`."""
    # Nobody's lock is waited for, and several processes may do this at once.
    tired = (
        select(deliveries.c.id)
        .where(
            deliveries.c.account_id == account_id,
            deliveries.c.lane == lane,
            deliveries.c.due_at.is_not(None),
            deliveries.c.channel_since < database_now(plus=bindparam("ago", type_=BigInteger)),
            or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now()),
        )
        .with_for_update(key_share=True, skip_locked=True)
        .cte("tired")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    taken = update(deliveries).where(deliveries.c.id.in_(select(tired.c.id)))
    taken = taken.values(lane=PROVIDER_LANE, due_at=database_now())
    values = {"shift": shift, "ago": -microseconds(timedelta(seconds=after))}
    return len(connection.execute(taken.returning(deliveries.c.id), values).all())
