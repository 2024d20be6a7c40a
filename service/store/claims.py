"""Taking due deliveries: the one statement by which processes share the work."""

import secrets
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import BigInteger, Connection, Text, Update, bindparam, case, exists, literal, or_, select, type_coerce, update

from service.delivery import Capture, Claim, Send
from service.store.clock import database_now
from service.store.rows import CAPTURE_COLUMNS, HELD_COLUMNS, SEND_COLUMNS, Held, capture_of, held_of, send_of
from service.store.tables import captures, deliveries, microseconds, pauses, sends


def _claiming(*, suspects: bool) -> Update:
    due = (
        select(deliveries.c.id)
        .where(
            deliveries.c.account_id == bindparam("account_id"),
            deliveries.c.lane == bindparam("lane"),
            deliveries.c.due_at <= database_now(),
            or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now()),
            deliveries.c.claims > 0 if suspects else deliveries.c.claims == 0,
            ~exists().where(pauses.c.key == bindparam("lane")),
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
