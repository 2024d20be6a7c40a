"""Reports of what became of messages: each kept once, matched with its send, and what it makes of the delivery."""

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection, delete, or_, select
from sqlalchemy.engine import Row

from service.delivery import Entry, Fate, Report, Reported, Result, Send, Settled, Step
from service.privacy import scrub
from service.store import life
from service.store.book import Book
from service.store.clock import now_of
from service.store.erasure import without_words
from service.store.rows import SEND_COLUMNS, send_of
from service.store.tables import deliveries, receipts, sends, upsert

KEPT_UNMATCHED = timedelta(days=30)
_AT_ONCE = 200
_RESULTS = {
    Fate.DELIVERED: Result.ACCEPTED,
    Fate.FAILED: Result.REFUSED,
    Fate.DEFERRED: Result.DEFERRED,
    Fate.UNKNOWN: Result.UNCONFIRMED,
}


def about(connection: Connection, account_id: str, report: Report) -> Send | None:
    """Return the newest send that a report is about, if it is written yet."""
    named = or_(
        sends.c.remote_id == report.reference,
        sends.c.message_id == report.reference,
        sends.c.key == report.reference,
    )
    newest = (
        select(*SEND_COLUMNS)
        .join(deliveries, deliveries.c.id == sends.c.delivery_id)
        .where(named, sends.c.channel == report.channel, deliveries.c.account_id == account_id)
        .order_by(sends.c.begun_at.desc(), sends.c.ordinal.desc())
        .limit(1)
    )
    row = connection.execute(newest).one_or_none()
    return None if row is None else send_of(row).value


def unmatched(connection: Connection, account_id: str, shift: int) -> tuple[Report, ...]:
    """Return the newest reports that no send was found for yet, of these the oldest first.

    An early one finds its send within minutes, and must not wait behind those of mails that are none of ours.
    """
    waiting = (
        select(receipts)
        .where(receipts.c.account_id == account_id, receipts.c.send_id.is_(None))
        .where(receipts.c.received_at > now_of(connection, shift) - KEPT_UNMATCHED)
        .order_by(receipts.c.received_at.desc())
        .limit(_AT_ONCE)
    )
    return tuple(reversed([_report_of(row) for row in connection.execute(waiting)]))


def keep(book: Book, account_id: str, report: Report) -> Reported:
    """Write a report whose send is not known yet, and forget those for which none was found in all that time."""
    old = delete(receipts).where(receipts.c.account_id == account_id, receipts.c.send_id.is_(None))
    book.connection.execute(old.where(receipts.c.received_at <= book.now - KEPT_UNMATCHED))
    return Reported.UNMATCHED if _written(book, account_id, report, None) else Reported.DUPLICATE


def apply(book: Book, account_id: str, report: Report, delivery_id: str, send_id: str) -> Reported:
    """Write a report of a known send, and what follows from it."""
    held, intent = book.row(delivery_id), book.sends.get(send_id)
    erased = held.delivery.erased_at is not None
    if intent is None or not _written(book, account_id, without_words(report) if erased else report, send_id):
        return Reported.DUPLICATE
    send, at = intent.value, report.at or book.now
    entry = Entry(
        at=book.now,
        step=Step.RECEIPT,
        result=_RESULTS[report.fate],
        channel=report.channel,
        detail=scrub(report.detail or report.fate.value),
        message_id=send.message_id,
    )
    if send.reported_at is not None and at < send.reported_at:
        book.put(held, entry)
        return Reported.RECORDED
    if report.fate not in (Fate.DELIVERED, Fate.FAILED):
        told = life.proved(send, book.now)
        after = life.send_settled(held, told, intent.lease_token, book.now) if told is not send else held
    elif report.fate is Fate.DELIVERED:
        told = life.confirmed(send, at, book.now)
        after = life.send_confirmed(held, send, told, intent.lease_token, book.now)
    else:
        told = life.bounced(send, at)
        accepted = [other for other in _of_round(book, send) if other.outcome is Settled.ACCEPTED]
        # Some tell of one bounce twice, by two events: what it made of the delivery it made once.
        has_it = bool(accepted) or send.outcome is Settled.BOUNCED
        after = life.send_bounced(held, told, book.now, entry.detail, has_it=has_it)
    book.sends.put(send_id, replace(intent, value=told))
    book.put(after, entry)
    return Reported.BOUNCED if report.fate is Fate.FAILED and after is not held else Reported.RECORDED


def _of_round(book: Book, send: Send) -> list[Send]:
    values = (intent.value for intent in book.sends.all())
    return [v for v in values if (v.delivery_id, v.round) == (send.delivery_id, send.round) and v.id != send.id]


def _written(book: Book, account_id: str, report: Report, send_id: str | None) -> bool:
    """Insert a report, or its send where there was none yet; return whether that is news."""
    row = upsert(book.connection, receipts).values(
        account_id=account_id,
        channel=report.channel,
        event_id=report.event_id,
        reference=report.reference,
        fate=report.fate,
        at=report.at,
        detail=report.detail,
        received_at=book.now,
        send_id=send_id,
    )
    if send_id is None:
        statement = row.on_conflict_do_nothing()
    else:
        statement = row.on_conflict_do_update(
            index_elements=["account_id", "channel", "event_id"],
            set_={"send_id": send_id, "detail": report.detail},
            where=receipts.c.send_id.is_(None),
        )
    return bool(book.connection.execute(statement.returning(receipts.c.event_id)).all())


def _report_of(row: Row[tuple[object, ...]]) -> Report:
    return Report(
        channel=row.channel,
        event_id=row.event_id,
        reference=row.reference,
        fate=Fate(row.fate),
        at=row.at,
        detail=row.detail,
    )
