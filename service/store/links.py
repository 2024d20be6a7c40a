"""Links to invoice pages, and the sealed documents of those who keep them in the database."""

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, or_, select, update

from service.delivery import KeptLink, Outcome, Request
from service.store import life, work
from service.store.book import Book
from service.store.clock import database_now, now_of
from service.store.tables import documents, links, upsert

AT_ONCE = 200
NAMES_AT_ONCE = 500
RENEWED_EVERY = timedelta(days=1)
_NOTHING = b""
_COLUMNS = tuple(links.c[column.name] for column in fields(KeptLink))


def keep(book: Book, link: KeptLink) -> KeptLink:
    """As `Store.keep_link`: the delivery's row is locked, so that two processes cannot both enter one."""
    book.row(link.delivery_id)
    of_document = (
        select(*_COLUMNS)
        .where(links.c.delivery_id == link.delivery_id, links.c.document_sha256 == link.document_sha256)
        .where(links.c.revoked_at.is_(None), links.c.expires_at > book.now, links.c.sealed != _NOTHING)
        .order_by(links.c.created_at, links.c.token_hash)
    )
    row = book.connection.execute(of_document.limit(1)).one_or_none()
    if row is None:
        values = {name: getattr(link, name) for name in ("token_hash", "delivery_id", "account_id", "document_sha256")}
        values |= {"sealed": link.sealed, "created_at": link.created_at, "expires_at": link.expires_at}
        book.connection.execute(insert(links).values(values))
        return link
    later = max(row.expires_at, link.expires_at)
    if later > row.expires_at:
        _change(book.connection, links.c.token_hash == row.token_hash, expires_at=later)
    return _link_of(row, expires_at=later)


def one(connection: Connection, token_hash: str) -> KeptLink | None:
    """As `Store.link`."""
    row = connection.execute(select(*_COLUMNS).where(links.c.token_hash == token_hash)).one_or_none()
    return None if row is None else _link_of(row)


def of_delivery(connection: Connection, delivery_id: str) -> tuple[KeptLink, ...]:
    """As `Store.links_of`."""
    found = select(*_COLUMNS).where(links.c.delivery_id == delivery_id)
    return tuple(map(_link_of, connection.execute(found.order_by(links.c.created_at, links.c.token_hash))))


def opened(connection: Connection, token_hash: str, shift: int) -> None:
    """As `Store.open_link`."""
    first = links.c.opened_at.is_(None)
    _change(connection, links.c.token_hash == token_hash, first, opened_at=now_of(connection, shift))


def renew(book: Book, link: KeptLink, request: Request) -> bool:
    """As `Store.renew_link`, in one transaction with the resend."""
    delivery = book.row(link.delivery_id).delivery
    if delivery.outcome is not Outcome.COMPLETED or delivery.voided_at is not None:
        return False  # it is on its way already, was stopped or voided, or needs a person
    row = one(book.connection, link.token_hash)
    if row is None or row.revoked_at is not None:
        return False
    if row.renewed_at is not None and row.renewed_at > book.now - RENEWED_EVERY:
        return False
    _change(book.connection, links.c.token_hash == link.token_hash, renewed_at=book.now)
    work.resend(book, link.delivery_id, request)
    return True


def revoke(book: Book, delivery_id: str, request: Request) -> int:
    """As `Store.revoke_links`."""
    held = book.row(delivery_id)
    of_delivery = links.c.delivery_id == delivery_id
    ended = _change(
        book.connection,
        of_delivery,
        links.c.revoked_at.is_(None),
        links.c.expires_at > book.now,
        revoked_at=book.now,
    )
    if ended:
        book.put(held, life.asked_for("link revoked", request))
    return ended


def drop(connection: Connection, token_hash: str, shift: int) -> None:
    """As `Store.drop_link`."""
    _change(connection, links.c.token_hash == token_hash, revoked_at=now_of(connection, shift))


def ended(connection: Connection, account_id: str, shift: int) -> tuple[KeptLink, ...]:
    """As `Store.ended_links`."""
    over = or_(links.c.expires_at < database_now(), links.c.revoked_at.is_not(None))
    found = select(*_COLUMNS).where(links.c.account_id == account_id, over, func.length(links.c.sealed) > 0)
    rows = connection.execute(found.order_by(links.c.expires_at).limit(AT_ONCE), {"shift": shift})
    return tuple(map(_link_of, rows))


def empty(connection: Connection, token_hashes: Sequence[str]) -> None:
    """As `Store.empty_links`."""
    _change(connection, links.c.token_hash.in_(sorted(token_hashes)), sealed=_NOTHING)


def known(connection: Connection, token_hashes: Sequence[str]) -> frozenset[str]:
    """As `Store.known_links`."""
    there = select(links.c.token_hash).where(links.c.token_hash.in_(list(token_hashes)), links.c.sealed != _NOTHING)
    return frozenset(connection.execute(there).scalars())


def put_document(connection: Connection, name: str, sealed: bytes) -> None:
    """As `Store.put_document`."""
    row = upsert(connection, documents).values(name=name, sealed=sealed)
    connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"sealed": sealed}))


def document(connection: Connection, name: str) -> bytes | None:
    """As `Store.document`."""
    sealed = connection.execute(select(documents.c.sealed).where(documents.c.name == name)).scalar_one_or_none()
    return None if sealed is None else bytes(sealed)


def delete_document(connection: Connection, name: str) -> None:
    """As `Store.delete_document`."""
    connection.execute(delete(documents).where(documents.c.name == name))


def document_names(connection: Connection, account_id: str, after: str | None) -> tuple[str, ...]:
    """As `Store.document_names`."""
    names = select(documents.c.name).where(documents.c.name.startswith(f"{account_id}/", autoescape=True))
    if after is not None:
        names = names.where(documents.c.name > after)
    return tuple(connection.execute(names.order_by(documents.c.name).limit(NAMES_AT_ONCE)).scalars())


def _change(connection: Connection, *which: ColumnElement[bool], **values: Any) -> int:
    changed = update(links).where(*which).values(**values)
    return len(connection.execute(changed.returning(links.c.token_hash)).all())


def _link_of(row: Row[Any], **changed: Any) -> KeptLink:
    values = {column.name: getattr(row, column.name) for column in fields(KeptLink)}
    return KeptLink(**(values | {"sealed": bytes(row.sealed)} | changed))
