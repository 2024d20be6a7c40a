"""Pauses and jobs: what all processes of one record share beside its deliveries."""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    case,
    delete,
    or_,
    select,
    tuple_,
    type_coerce,
    update,
)
from sqlalchemy.sql.dml import ReturningDelete

from service.delivery import PROVIDER_LANE, Job, Pause, Probe
from service.store.clock import database_now, now_of
from service.store.tables import Instant, deliveries, jobs, microseconds, pauses, upsert

_PAUSE = (
    pauses.c.key,
    pauses.c.reason,
    pauses.c.since,
    pauses.c.paused_by,
    pauses.c.next_probe_at,
    pauses.c.probes,
)


def pause(
    connection: Connection,
    account_id: str,
    lane: str,
    reason: str,
    *,
    by: str | None,
    probe_in: float | None,
    shift: int,
) -> bool:
    """As `Store.pause`."""
    now = now_of(connection, shift)
    probe_at = None if probe_in is None else now + timedelta(seconds=probe_in)
    row = {"account_id": account_id, "key": lane, "reason": reason, "since": now, "paused_by": by}
    entered = upsert(connection, pauses).values(row | {"next_probe_at": probe_at, "probes": 0})
    if connection.execute(entered.on_conflict_do_nothing().returning(pauses.c.key)).all():
        return True
    this = and_(pauses.c.account_id == account_id, pauses.c.key == lane)
    if by is not None:
        held = {"reason": reason, "paused_by": by, "next_probe_at": None, "probe_token": None, "probe_until": None}
        connection.execute(update(pauses).where(this).values(held))
    elif probe_at is not None:
        later = and_(this, pauses.c.paused_by.is_(None), pauses.c.next_probe_at < probe_at)
        connection.execute(update(pauses).where(later).values(next_probe_at=probe_at))
    return False


def resume(connection: Connection, account_id: str, lane: str, shift: int) -> bool:
    """As `Store.resume`."""
    this = and_(pauses.c.account_id == account_id, pauses.c.key == lane)
    return _end(connection, account_id, lane, delete(pauses).where(this).returning(pauses.c.since), shift)


def in_force(connection: Connection, account_id: str) -> tuple[Pause, ...]:
    """As `Store.pauses`."""
    rows = connection.execute(select(*_PAUSE).where(pauses.c.account_id == account_id).order_by(pauses.c.key))
    return tuple(
        Pause(lane=lane, reason=reason, since=since, by=by, next_probe_at=next_probe_at, probes=probes)
        for lane, reason, since, by, next_probe_at, probes in rows
    )


def take_probe(
    connection: Connection, account_id: str, lanes: Sequence[str], *, lease: float, shift: int
) -> Probe | None:
    """As `Store.take_probe`."""
    due = (
        select(pauses.c.account_id, pauses.c.key)
        .where(
            pauses.c.account_id == account_id,
            pauses.c.key.in_(lanes),
            pauses.c.paused_by.is_(None),
            pauses.c.next_probe_at <= database_now(),
            or_(pauses.c.probe_until.is_(None), pauses.c.probe_until < database_now()),
        )
        .order_by(pauses.c.next_probe_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    until = now_of(connection, shift) + timedelta(seconds=lease)
    token = secrets.token_hex(16)
    taken = (
        update(pauses)
        .where(tuple_(pauses.c.account_id, pauses.c.key).in_(due))
        .values(probe_token=token, probe_until=until)
        .returning(pauses.c.key, pauses.c.probes, pauses.c.since)
    )
    row = connection.execute(taken, {"shift": shift}).one_or_none()
    if row is None:
        return None
    return Probe(account_id=account_id, lane=row.key, token=token, probes=row.probes, since=row.since)


def renew_probe(connection: Connection, probe: Probe, *, lease: float, shift: int) -> None:
    """As `Store.renew_probe`."""
    until = now_of(connection, shift) + timedelta(seconds=lease)
    connection.execute(update(pauses).where(_tried_by(probe)).values(probe_until=until))


def end_probe(connection: Connection, probe: Probe, *, fault: str | None, next_in: float, shift: int) -> bool:
    """As `Store.end_probe`; one whose leave has passed on to another, or was ended by a person, changes nothing."""
    this = _tried_by(probe)
    if fault is None:
        over = delete(pauses).where(this).returning(pauses.c.since)
        return _end(connection, probe.account_id, probe.lane, over, shift)
    again = {
        "reason": fault,
        "probes": probe.probes + 1,
        "next_probe_at": now_of(connection, shift) + timedelta(seconds=next_in),
        "probe_token": None,
        "probe_until": None,
    }
    connection.execute(update(pauses).where(this).values(again))
    return False


def _tried_by(probe: Probe) -> ColumnElement[bool]:
    return and_(
        pauses.c.account_id == probe.account_id, pauses.c.key == probe.lane, pauses.c.probe_token == probe.token
    )


def _end(connection: Connection, account_id: str, lane: str, ending: ReturningDelete[datetime], shift: int) -> bool:
    """End a pause, and take its length off the give-up clocks that would have run through it.

    Where another pause stops a clock as well, that one's end takes off what it has of the time itself.
    """
    # Here the pause's row is locked before any delivery's, and in a group it would be after them: so whoever may wait
    # for a pause's row is a transaction of its own, or two processes could wait for each other.
    since = connection.execute(ending).scalar_one_or_none()
    if since is None:
        return False
    now = now_of(connection, shift)
    others = {pause.lane: min(pause.since, now) for pause in in_force(connection, account_id)}
    if lane != PROVIDER_LANE:
        _stand_still(connection, account_id, deliveries.c.lane == lane, since, others.get(PROVIDER_LANE, now))
        return True
    for other, until in others.items():
        _stand_still(connection, account_id, deliveries.c.lane == other, since, until)
    _stand_still(connection, account_id, deliveries.c.lane.not_in(others), since, now)
    return True


def _stand_still(
    connection: Connection, account_id: str, waiting: ColumnElement[bool], since: datetime, until: datetime
) -> None:
    """Take what of the span between two times a give-up clock has run through off it."""
    if until <= since:
        return
    running = type_coerce(deliveries.c.patience_since, BigInteger)
    moved = case(
        (deliveries.c.patience_since < since, running + microseconds(until - since)),
        else_=type_coerce(until, Instant),
    )
    # In the order of their ids, as every group locks its own.
    rows = (
        select(deliveries.c.id)
        .where(
            deliveries.c.account_id == account_id,
            deliveries.c.due_at.is_not(None),
            deliveries.c.patience_since < until,
            waiting,
        )
        .order_by(deliveries.c.id)
        .with_for_update(key_share=True)
        .cte("rows")
    )
    connection.execute(update(deliveries).where(deliveries.c.id.in_(select(rows.c.id))).values(patience_since=moved))


def take_job(connection: Connection, name: str, *, every: float, lease: float, shift: int) -> Job | None:
    """As `Store.take_job`."""
    now = now_of(connection, shift)
    token = secrets.token_hex(16)
    until = now + timedelta(seconds=lease)
    turn = upsert(connection, jobs).values(name=name, token=token, leased_until=until)
    turn = turn.on_conflict_do_update(
        index_elements=["name"],
        set_={"token": token, "leased_until": until},
        where=and_(
            or_(jobs.c.leased_until.is_(None), jobs.c.leased_until < now),
            or_(jobs.c.last_run_at.is_(None), jobs.c.last_run_at <= now - timedelta(seconds=every)),
        ),
    )
    row = connection.execute(turn.returning(jobs.c.last_run_at, jobs.c.note)).one_or_none()
    if row is None:
        return None
    return Job(name=name, token=token, now=now, last_run_at=row.last_run_at, note=row.note)


def end_job(connection: Connection, job: Job, *, done: bool, note: str | None, shift: int) -> None:
    """As `Store.end_job`; nothing, when the turn has passed on to another."""
    values: dict[str, object] = {"token": None, "leased_until": None}
    if done:
        values |= {"last_run_at": now_of(connection, shift), "note": note}
    elif note is not None:
        values["note"] = note
    connection.execute(update(jobs).where(jobs.c.name == job.name, jobs.c.token == job.token).values(values))
