"""What one group of writes locks, reads once and writes together: a few statements, however many the writes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from itertools import groupby
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Insert, Table, Update, bindparam, insert, select, update

from service.delivery import Capture, Entry, Kind, Send
from service.store import erasure
from service.store.chain import chained
from service.store.clock import database_now
from service.store.errors import Again, Unknown
from service.store.queries import captures_among, sends_among
from service.store.rows import HELD_COLUMNS, Held, Intent, held_of, held_values, intent_values
from service.store.tables import captures, deliveries, history, sends, transactions, upsert

R = TypeVar("R")

# The row of `deliveries` is the lock for all that belongs to it. A group locks all its rows first, in the order of
# their ids, so that no two processes wait for each other. (`key_share`: other rows may go on pointing at them.)
_LOCK = (
    select(*HELD_COLUMNS)
    .where(deliveries.c.id.in_(bindparam("ids", expanding=True)))
    .order_by(deliveries.c.id)
    .with_for_update(key_share=True)
)
_NOW = select(database_now())
_ENTERED = ("id", "account_id", "transaction_id", "received_at", "kind", "outcome", "lane", "due_at", "source")
_OF_TRANSACTION = ("product_type", "amount", "currency", "merchant_reference")


class Page(Generic[R]):
    """Rows of one table by id, as they were read and as they are to be."""

    def __init__(self, table: Table, values_of: Callable[[R], dict[str, Any]]) -> None:
        self._table = table
        self._values_of = values_of
        self._before: dict[str, R] = {}
        self._after: dict[str, R] = {}

    def read(self, rows: Iterable[tuple[str, R]]) -> None:
        """Take in rows that are in the database."""
        for key, row in rows:
            self._before[key] = self._after[key] = row

    def get(self, key: str) -> R | None:
        return self._after.get(key)

    def all(self) -> Iterable[R]:
        return self._after.values()

    def put(self, key: str, row: R) -> None:
        """Put a row in place of the one with this id, or add it."""
        self._after[key] = row

    def changes(self) -> dict[str, dict[str, Any]]:
        """Return the changed columns of the rows that were there before."""
        return {
            key: _difference(self._values_of(self._before[key]), self._values_of(row))
            for key, row in self._after.items()
            if key in self._before and row is not self._before[key]
        }

    def write(self, connection: Connection) -> None:
        """Update what has changed, then insert what is new: what is settled makes room for a new intent."""
        update_all(connection, self._table, self.changes())
        new = [self._values_of(row) for key, row in self._after.items() if key not in self._before]
        if new:
            connection.execute(_insert(self._table), new)


class Book:
    """A group's deliveries with their intents. Values are put in place of values; `flush` writes what has changed."""

    def __init__(self, connection: Connection, *, shift: int) -> None:
        self.connection = connection
        self.shift = shift
        self.sends: Page[Intent[Send]] = Page(sends, intent_values)
        self.captures: Page[Intent[Capture]] = Page(captures, intent_values)
        self._held: Page[Held] = Page(deliveries, held_values)
        self._entered: dict[str, dict[str, Any]] = {}
        self._entries: list[dict[str, Any]] = []
        self._now: datetime | None = None

    @property
    def now(self) -> datetime:
        """The database's time, read once, when the rows are locked."""
        if self._now is None:
            self._now = self.connection.execute(_NOW, {"shift": self.shift}).scalar_one()
        return self._now

    def lock(self, ids: set[str], *, with_sends: set[str], with_captures: set[str]) -> None:
        """Lock the rows with these ids that exist, and read the sends and the captures of those that need them."""
        if ids:
            locked = map(held_of, self.connection.execute(_LOCK, {"ids": sorted(ids)}))
            self._held.read((held.delivery.id, held) for held in locked)
        known = list(self._held.all())
        begun = {held.delivery.id for held in known if held.delivery.attempt}
        sent = sends_among(self.connection, sorted(begun & with_sends))
        self.sends.read((intent.value.id, intent) for intent in sent)
        begun = {held.delivery.id for held in known if held.captures_begun}
        captured = captures_among(self.connection, sorted(begun & with_captures))
        self.captures.read((intent.value.id, intent) for intent in captured)

    def get(self, delivery_id: str) -> Held | None:
        """Return the row as it stands, or None."""
        return self._held.get(delivery_id)

    def row(self, delivery_id: str) -> Held:
        """Return the row as it stands; raises `Unknown`."""
        held = self._held.get(delivery_id)
        if held is None:
            raise Unknown(delivery_id)
        return held

    def put(self, held: Held, *entries: Entry) -> None:
        """Put a row in place of the one with its id, and add to its history. What was erased of it stays so."""
        key = held.delivery.id
        before = self.row(key)
        erased = before.delivery.erased_at is not None
        if erased:
            held = erasure.still(before, held)
            erased = held.delivery.erased_at is not None
        rows, last = chained(key, before.chain, entries, without_words=erased)
        self._held.put(key, held if last == held.chain else replace(held, chain=last))
        self._entries += rows

    def enter(self, held: Held, entry: Entry) -> None:
        """Add a new row; what is put in its place later in the group is a change to it."""
        key = held.delivery.id
        rows, last = chained(key, None, [entry])
        self._entered[key] = {name: getattr(held.delivery, name) for name in _ENTERED} | {"chain": last}
        self._held.read([(key, replace(held, chain=last))])
        self._entries += rows

    def flush(self) -> None:
        """Write everything. Raises `Again` when another process has entered one of the new rows meanwhile."""
        self._forget()
        if self._entered:
            self._insert_entered([self._entered[key] for key in sorted(self._entered)])
        changed = self._held.changes()
        update_all(self.connection, deliveries, changed)
        self.sends.write(self.connection)
        self.captures.write(self.connection)
        about = {
            held.delivery.transaction_id: _about(columns)
            for held, columns in ((self.row(key), columns) for key, columns in changed.items())
            if held.delivery.kind is not Kind.GROUPED
        }
        update_all(self.connection, transactions, about)
        if self._entries:
            self.connection.execute(_insert(history), self._entries)

    def _forget(self) -> None:
        """Take the words from facts about erased deliveries: one may come late."""
        erased = {held.delivery.id for held in self._held.all() if held.delivery.erased_at is not None}
        if not erased:
            return
        for sent in [one for one in self.sends.all() if one.value.delivery_id in erased]:
            self.sends.put(sent.value.id, replace(sent, value=erasure.without_words(sent.value)))
        for captured in [one for one in self.captures.all() if one.value.delivery_id in erased]:
            self.captures.put(captured.value.id, replace(captured, value=erasure.without_words(captured.value)))

    def _insert_entered(self, rows: Sequence[dict[str, Any]]) -> None:
        # In the order of their ids, for two processes may be entering the same ones.
        statement = upsert(self.connection, deliveries).on_conflict_do_nothing().returning(deliveries.c.id)
        if len(self.connection.execute(statement, rows).all()) < len(rows):
            raise Again("another process entered the same deliveries")
        about = [
            {"id": row["transaction_id"], "delivery_id": row["id"]}
            | {name: row[name] for name in ("account_id", "received_at")}
            for row in rows
            if row["kind"] is not Kind.GROUPED  # it is about transactions that are entered already
        ]
        if about:
            self.connection.execute(_insert(transactions), about)


def update_all(connection: Connection, table: Table, changed: dict[str, dict[str, Any]]) -> None:
    """Write the changed columns by id: one statement for all rows of which the same columns changed."""
    shaped = sorted((tuple(values), key) for key, values in changed.items() if values)
    for names, group in groupby(shaped, key=lambda shape: shape[0]):
        rows = [{"_id": key} | {f"_{name}": changed[key][name] for name in names} for _, key in group]
        connection.execute(_update(table, names), rows)


def _difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if value != before[name]}


def _about(changed: dict[str, Any]) -> dict[str, Any]:
    return {name: changed[name] for name in _OF_TRANSACTION if name in changed}


@cache
def _insert(table: Table) -> Insert:
    return insert(table)


@cache
def _update(table: Table, names: tuple[str, ...]) -> Update:
    values = {name: bindparam(f"_{name}", type_=table.c[name].type) for name in names}
    return update(table).where(table.c.id == bindparam("_id")).values(values)
