"""What is personal in the record, column by column, and how it is erased: blanked, or replaced by keyed hashes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Select,
    Table,
    Update,
    bindparam,
    case,
    delete,
    insert,
    or_,
    select,
    update,
)

from service.delivery import Capture, Entry, KeptLink, Outcome, Report, Send
from service.privacy import ERASED, erased_reference
from service.store.chain import chained
from service.store.clock import database_now
from service.store.rows import Held
from service.store.tables import (
    Instant,
    alerts,
    captures,
    deliveries,
    documents,
    history,
    jobs,
    links,
    paces,
    pauses,
    purchases,
    receipts,
    sends,
    transactions,
)


class Fate(Enum):
    """What becomes of a column when a delivery is erased."""

    KEPT = auto()
    KEYED = auto()  # kept, for it never held anything but a keyed hash
    HASHED = auto()  # becomes a keyed hash, so that it can still be searched for
    BLANKED = auto()  # becomes NULL
    MARKED = auto()  # becomes a word that says that something was there
    DELETED = auto()  # goes with its whole row


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns of a table that share a fate, and the reason."""

    table: Table
    names: tuple[str, ...]
    fate: Fate
    why: str


def _columns(table: Table, names: str, fate: Fate, why: str) -> Columns:
    return Columns(table, tuple(names.split()), fate, why)


PERSONAL = (
    _columns(deliveries, "recipient", Fate.MARKED, "a masked address still has its first letter and its domain"),
    _columns(
        deliveries, "reason", Fate.MARKED, "an operator's, a relay's or the provider's own words may name somebody"
    ),
    _columns(deliveries, "send_to", Fate.BLANKED, "an address in clear, kept while a resend to it may be tried again"),
    _columns(
        deliveries, "merchant_reference", Fate.HASHED, "leads to an order, and may be a customer's number or name"
    ),
    _columns(deliveries, "recipient_key organization_key", Fate.KEYED, "by them whoever asks is found again"),
    _columns(
        deliveries,
        "id account_id transaction_id kind product_type invoice_number amount currency",
        Fate.KEPT,
        "which invoice it was: Dintero and the books know of whom, this record does not any more; and an invoice that"
        " is not known any more might be sent again",
    ),
    _columns(
        deliveries,
        "received_at outcome lane due_at no_send_before attempt claims errors postponed bad_documents round"
        " closed_waiting source released even_late stated_round patience_used patience_since decided_by channel"
        " erased_at delivered_at delivery_proof captured_at captured_known_at voided_at closed_at lease_token"
        " leased_until wakes seen asked told captures_begun chain fallen turn channel_since paced as_link",
        Fate.KEPT,
        "times, counts and words of our own: what was done, and when",
    ),
    _columns(transactions, "merchant_reference", Fate.HASHED, "as the delivery's"),
    _columns(
        transactions,
        "id delivery_id account_id received_at product_type amount currency",
        Fate.KEPT,
        "which transactions the invoice was for, as the delivery's",
    ),
    _columns(
        purchases,
        "business_name organization_number country customer_reference",
        Fate.MARKED,
        "who bought it; which purchases were billed together stays known by the group's digest",
    ),
    _columns(purchases, "merchant_reference remark", Fate.BLANKED, "as the delivery's, and what may name the customer"),
    _columns(purchases, "recipient_key", Fate.KEYED, "as the delivery's"),
    _columns(
        purchases,
        "transaction_id account_id group interval period_start currency either_period interval_from days_until_due"
        " days_from purchased_at amount channel decided_by invoice_id invoice_number invoice_date due_date looked_at",
        Fate.KEPT,
        "which invoice it was billed with, and on which terms",
    ),
    _columns(sends, "recipient", Fate.MARKED, "as the delivery's"),
    _columns(sends, "answer", Fate.BLANKED, "the relay's own words may name somebody"),
    _columns(sends, "recipient_key", Fate.KEYED, "as the delivery's"),
    _columns(
        sends,
        "id delivery_id ordinal round channel purpose key dated message_id sha256 begun_at outcome proof settled_at"
        " document_sha256 template_version lease_token remote_id reported_at",
        Fate.KEPT,
        "that a message was sent, and its digests: they tell nobody what they are of who does not have it; the key and"
        " the Message-ID are digests of keyed hashes",
    ),
    _columns(captures, "detail", Fate.BLANKED, "the provider's own words may name somebody"),
    _columns(
        captures,
        "id delivery_id ordinal transaction_id reference amount begun_at outcome event_request_id event_id settled_at"
        " lease_token",
        Fate.KEPT,
        "that it was captured; the reference is our own, made of the transaction's id",
    ),
    _columns(history, "detail", Fate.BLANKED, "as the reason, the answers and the provider's words, which it repeats"),
    _columns(history, "salt", Fate.BLANKED, "with it, erased words could be guessed and the guess be tried"),
    _columns(
        history,
        "id delivery_id at step result channel message_id detail_hash hash",
        Fate.KEPT,
        "what happened and when; a salted hash without its salt tells nothing",
    ),
    _columns(alerts, "detail", Fate.BLANKED, "as the reason, which it repeats"),
    _columns(alerts, "account_id way name subject first_at told_at gone_at", Fate.KEPT, "that a person was told"),
    _columns(
        pauses,
        "account_id key reason since paused_by next_probe_at probes probe_token probe_until",
        Fate.KEPT,
        "about a channel and not about a customer, and gone when the pause is",
    ),
    _columns(receipts, "detail", Fate.BLANKED, "as the answers"),
    _columns(
        receipts,
        "account_id channel event_id reference fate at received_at send_id",
        Fate.KEPT,
        "what became of a message, by names that are the channel's own",
    ),
    _columns(paces, "account_id lane next_at", Fate.KEPT, "about a channel and not about a customer"),
    _columns(
        links,
        "token_hash delivery_id account_id document_sha256 sealed created_at expires_at revoked_at opened_at"
        " renewed_at",
        Fate.DELETED,
        "it leads to the invoice, and says when it was looked at",
    ),
    _columns(documents, "name sealed", Fate.DELETED, "the invoice itself"),
    _columns(jobs, "name leased_until token last_run_at note", Fate.KEPT, "about work, not about a customer"),
)
"""Every column of every table: what becomes of it when a delivery is erased, and why."""

_WRITTEN = frozenset({Fate.HASHED, Fate.BLANKED, Fate.MARKED})
_OF_DELIVERY = tuple(name for c in PERSONAL if c.table is deliveries and c.fate in _WRITTEN for name in c.names)


def still(before: Held, after: Held) -> Held:
    """Return what is to become of an erased row without what a later read or save would bring back.

    Opened again, it needs all of it, and is erased afresh after it was closed.
    """
    if after.delivery.outcome is Outcome.OPEN:
        return replace(after, delivery=replace(after.delivery, erased_at=None))
    kept: dict[str, Any] = {name: getattr(before.delivery, name) for name in _OF_DELIVERY}
    return replace(after, delivery=replace(after.delivery, erased_at=before.delivery.erased_at, **kept))


V = TypeVar("V", Send, Capture, Report)


def without_words(fact: V) -> V:
    """Return a fact about an erased delivery as its row is, however late it is told."""
    if isinstance(fact, Send):
        return replace(fact, recipient=ERASED, answer=None)
    return replace(fact, detail=None)


def erase(connection: Connection, ids: Sequence[str], entry: Entry, shift: int) -> tuple[str, ...]:
    """Erase what is personal in these deliveries now; return the ids of those that were erased.

    Not in those that are open, that somebody has in hand, or that are erased already. `entry` is put into their
    history, and stays.
    """
    rows = connection.execute(_NAMED, {"ids": list(ids), "shift": shift}).all()
    return _erase(connection, rows, entry, shift)


def erase_old(
    connection: Connection, account_id: str, before: datetime, *, limit: int, entry: Entry, shift: int
) -> int:
    """Erase up to `limit` of an account's deliveries that were closed before then; return how many."""
    values = {"account_id": account_id, "before": before, "limit": limit, "shift": shift}
    return len(_erase(connection, connection.execute(_OLD, values).all(), entry, shift))


def _erase(connection: Connection, rows: Sequence[Row[Any]], entry: Entry, shift: int) -> tuple[str, ...]:
    if not rows:
        return ()
    ids = [row.id for row in rows]
    lines: list[dict[str, Any]] = []
    changed = []
    for row in rows:
        new, last = chained(row.id, row.chain, [entry])
        lines += new
        changed.append(
            {"_id": row.id, "reference": _hashed(row.account_id, row.merchant_reference), "chain": last, "shift": shift}
        )
    referring = connection.execute(_REFERRING, {"ids": ids}).all()
    for statement, values in (
        (_HISTORY, {"ids": ids}),
        (_SENDS, {"ids": ids}),
        (_RECEIPTS, {"ids": ids}),
        (_CAPTURES, {"ids": ids}),
        (_ALERTS, {"ids": ids}),
        (_PURCHASES, {"ids": ids}),
        (
            _TRANSACTIONS,
            [{"_id": row.id, "reference": _hashed(row.account_id, row.merchant_reference)} for row in referring],
        ),
        (_DELIVERIES, changed),
        (insert(history), lines),
    ):
        if values:
            connection.execute(statement, values)
    _delete_pages(connection, ids)
    return tuple(ids)


def _delete_pages(connection: Connection, ids: Sequence[str]) -> None:
    """Delete the links of deliveries, and their documents where the database keeps them.

    Those that are kept elsewhere belong to no link then, and go with the next look at them (links.py).
    """
    found = [KeptLink(**row._mapping) for row in connection.execute(_LINKS, {"ids": ids})]  # noqa: SLF001 - its public name
    if found:
        connection.execute(delete(documents).where(documents.c.name.in_([link.document_name for link in found])))
        connection.execute(delete(links).where(links.c.token_hash.in_([link.token_hash for link in found])))


def _hashed(account_id: str, reference: str | None) -> str | None:
    return None if reference is None else erased_reference(account_id, reference)


def _emptied(table: Table) -> dict[str, Any]:
    """Return the new values of a table's personal columns, hashes apart."""
    values: dict[str, Any] = {}
    for columns in PERSONAL:
        if columns.table is table:
            values |= {name: None for name in columns.names if columns.fate is Fate.BLANKED}
            values |= {name: _marked(table.c[name]) for name in columns.names if columns.fate is Fate.MARKED}
    return values


def _marked(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((column.is_(None), None), else_=ERASED)


def _erasable(condition: Iterable[ColumnElement[bool]]) -> Select[Any]:
    columns = (deliveries.c[name] for name in ("id", "account_id", "merchant_reference", "chain"))
    return (
        select(*columns)
        .where(
            *condition,
            deliveries.c.erased_at.is_(None),
            deliveries.c.outcome != Outcome.OPEN.value,
            # Who has it in hand would write back what it read.
            or_(deliveries.c.leased_until.is_(None), deliveries.c.leased_until < database_now()),
        )
        .with_for_update(key_share=True, skip_locked=True)
    )


_IDS: BindParameter[str] = bindparam("ids", expanding=True)
_NAMED = _erasable([deliveries.c.id.in_(_IDS)])
_OLD = (
    _erasable(
        [
            deliveries.c.account_id == bindparam("account_id"),
            deliveries.c.closed_at < bindparam("before", type_=Instant),
        ]
    )
    .order_by(deliveries.c.closed_at)
    .limit(bindparam("limit"))
)
_REFERRING = select(transactions.c.id, transactions.c.account_id, transactions.c.merchant_reference).where(
    transactions.c.delivery_id.in_(_IDS), transactions.c.merchant_reference.is_not(None)
)
_LINKS = select(links).where(links.c.delivery_id.in_(_IDS))
_HISTORY, _SENDS, _CAPTURES = (
    update(table).where(table.c.delivery_id.in_(_IDS)).values(_emptied(table)) for table in (history, sends, captures)
)
_RECEIPTS = (
    update(receipts)
    .where(receipts.c.send_id.in_(select(sends.c.id).where(sends.c.delivery_id.in_(_IDS))))
    .values(_emptied(receipts))
)
_ALERTS = update(alerts).where(alerts.c.subject.in_(_IDS)).values(_emptied(alerts))
_PURCHASES = update(purchases).where(purchases.c.transaction_id.in_(_IDS)).values(_emptied(purchases))
_TRANSACTIONS: Update = (
    update(transactions).where(transactions.c.id == bindparam("_id")).values(merchant_reference=bindparam("reference"))
)
_DELIVERIES: Update = (
    update(deliveries)
    .where(deliveries.c.id == bindparam("_id"))
    .values(
        _emptied(deliveries)
        | {
            "merchant_reference": bindparam("reference"),
            "chain": bindparam("chain"),
            "erased_at": database_now(),
            # A lease that has run out may still save: not any more.
            "lease_token": None,
            "leased_until": None,
        }
    )
)
