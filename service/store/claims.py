"""Taking due deliveries: the one statement by which processes share the work."""

import secrets
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import BigInteger, Connection, Text, Update, bindparam, exists, or_, select, update

from service.delivery import PROVIDER_LANE, Claim
from service.store.clock import database_now
from service.store.queries import captures_among, sends_among
from service.store.rows import HELD_COLUMNS, Held, held_of
from service.store.tables import deliveries, microseconds, pauses


def take(
    connection: Connection,
    account_id: str,
    lane: str,
    limit: int,
    *,
    lease: timedelta,
    suspects: bool,
    probing: str | None,
    shift: int,
) -> tuple[Claim, ...]:
    """Lease up to `limit` due deliveries of a lane that nobody has and nothing pauses, those due longest first.

    Suspects are those that were claimed and not saved since: whoever had them died, or lost the lease.
    """
    values = {
        "_account_id": account_id,
        "_lane": lane,
        "limit": limit,
        "probing": probing or "",  # no lane's name
        "lease": microseconds(lease),
        "nonce": secrets.token_hex(16),
        "shift": shift,
    }
    rows = connection.execute(_SUSPECTS if suspects else _UNSUSPECTED, values).all()
    taken = sorted(map(held_of, rows), key=lambda held: (held.delivery.due_at, held.delivery.id))
    return _with_intents(connection, taken, lease)


def adopt(connection: Connection, account_id: str, lanes: Sequence[str], shift: int) -> int:
    """Give what waits in a lane that is not among `lanes` back to the provider's; return how many there were."""
    values = {"_account_id": account_id, "lanes": [*lanes, PROVIDER_LANE], "shift": shift}
    return len(connection.execute(_STRAYS, values).all())  # SQLite knows no row count of such a statement


def _with_intents(connection: Connection, taken: Sequence[Held], lease: timedelta) -> tuple[Claim, ...]:
    sends = sends_among(connection, [held.delivery.id for held in taken if held.delivery.attempt])
    captures = captures_among(connection, [held.delivery.id for held in taken if held.captures_begun])
    return tuple(
        Claim(
            delivery=held.delivery,
            token=held.lease_token or "",
            wakes=held.wakes,
            woken=held.wakes > held.seen,
            now=held.leased_until - lease,
            sends=tuple(send.value for send in sends if send.value.delivery_id == held.delivery.id),
            captures=tuple(capture.value for capture in captures if capture.value.delivery_id == held.delivery.id),
        )
        for held in taken
        if held.leased_until is not None
    )


def _claiming(*, suspects: bool) -> Update:
    due = (
        select(deliveries.c.id)
        .where(
            deliveries.c.account_id == bindparam("_account_id"),
            deliveries.c.lane == bindparam("_lane"),
            deliveries.c.due_at <= database_now(),
            or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now()),
            deliveries.c.claims > 0 if suspects else deliveries.c.claims == 0,
            # What waits for a channel is read again before it is sent: without the provider nothing goes.
            ~exists().where(
                pauses.c.account_id == bindparam("_account_id"),
                or_(pauses.c.key == bindparam("_lane"), pauses.c.key == PROVIDER_LANE),
                pauses.c.key != bindparam("probing"),
            ),
        )
        .order_by(deliveries.c.due_at)
        .limit(bindparam("limit", type_=BigInteger))
        # Who holds a row's lock is at work on it: the others pass it by rather than wait.
        .with_for_update(key_share=True, skip_locked=True)
        .cte("due")
        # Never folded into the UPDATE, which could then run it, and its LIMIT, more than once.
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    return (
        update(deliveries)
        .where(deliveries.c.id.in_(select(due.c.id)))
        .values(
            leased_until=database_now(plus=bindparam("lease", type_=BigInteger)),
            # Fresh for every claim and row: the id tells the rows of one claim apart.
            lease_token=bindparam("nonce", type_=Text) + deliveries.c.id,
            claims=deliveries.c.claims + 1,
        )
        .returning(*HELD_COLUMNS)
    )


def _adopting() -> Update:
    strays = (
        select(deliveries.c.id)
        .where(
            deliveries.c.account_id == bindparam("_account_id"),
            deliveries.c.due_at.is_not(None),
            deliveries.c.lane.not_in(bindparam("lanes", expanding=True)),
            or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now()),
        )
        .with_for_update(key_share=True, skip_locked=True)
        .cte("strays")
        .prefix_with("MATERIALIZED", dialect="postgresql")
    )
    adopted = update(deliveries).where(deliveries.c.id.in_(select(strays.c.id))).values(lane=PROVIDER_LANE)
    return adopted.returning(deliveries.c.id)


_STRAYS = _adopting()
_UNSUSPECTED = _claiming(suspects=False)
_SUSPECTS = _claiming(suspects=True)
