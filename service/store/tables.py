"""The tables, once for both databases, and the two column types that say how times and texts are kept."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(length: timedelta) -> int:
    """Return a length of time in whole microseconds."""
    return length // _MICROSECOND


class Instant(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since 1970 in UTC: one meaning, one order and one arithmetic everywhere."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return None if value is None else (value - EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else EPOCH + timedelta(microseconds=value)


class Day(TypeDecorator[date]):
    """A calendar day, kept as `YYYY-MM-DD`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: date | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else value.isoformat()

    def process_result_value(self, value: Any, dialect: Dialect) -> date | None:  # noqa: ARG002
        return None if value is None else date.fromisoformat(value)


class Words(TypeDecorator[str]):
    """Text that both databases take: NUL and lone surrogates become U+FFFD, lest one text rolls back a whole group."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else storable(str(value))


def storable(value: str) -> str:
    """Return `value` with each character that a database refuses replaced."""
    if value.isascii() and "\0" not in value:
        return value
    return "".join("\N{REPLACEMENT CHARACTER}" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in value)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


def _delivery_id() -> Column[str]:
    return Column("delivery_id", Words, ForeignKey("deliveries.id"), nullable=False)


metadata = MetaData()

# One document to deliver, and the row that is claimed. Whoever holds its row lock may write all that belongs to it:
# its sends, captures, transactions and history.
deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Words, primary_key=True),
    Column("account_id", Words, nullable=False),
    Column("transaction_id", Words, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("kind", Words, nullable=False),
    Column("outcome", Words, nullable=False),
    Column("reason", Words),
    Column("lane", Words, nullable=False),
    Column("due_at", Instant),
    Column("no_send_before", Instant),
    _count("attempt"),
    _count("claims"),
    _count("errors"),
    _count("postponed"),
    _count("bad_documents"),
    _count("round"),
    Column("send_to", Words),
    Column("closed_waiting", Boolean, nullable=False, server_default=false()),
    Column("source", Words, nullable=False, server_default=text("'callback'")),
    Column("released", Boolean, nullable=False, server_default=false()),
    Column("even_late", Boolean, nullable=False, server_default=false()),
    Column("stated_round", BigInteger),
    Column("patience_used", Double, nullable=False, server_default=text("0.0")),
    Column("patience_since", Instant),
    Column("decided_by", Words),
    Column("product_type", Words),
    Column("invoice_number", Words),
    Column("merchant_reference", Words),
    Column("amount", BigInteger),
    Column("currency", Words),
    Column("channel", Words),
    Column("recipient", Words),
    Column("recipient_key", Words),
    Column("organization_key", Words),
    Column("erased_at", Instant),
    Column("fallen", Words, nullable=False, server_default=text("''")),
    Column("turn", Words),
    Column("channel_since", Instant),
    Column("paced", Boolean, nullable=False, server_default=false()),
    Column("as_link", Boolean, nullable=False, server_default=false()),
    Column("delivered_at", Instant),
    Column("delivery_proof", Words),
    Column("captured_at", Instant),
    Column("captured_known_at", Instant),
    Column("voided_at", Instant),
    Column("closed_at", Instant),
    Column("lease_token", Words),
    Column("leased_until", Instant),
    _count("wakes"),  # wake-ups ever
    _count("seen"),  # what `wakes` was at the last claim that was saved; more now, and a wake-up made it due
    _count("asked"),  # what `wakes` was at the last retry or resend: newer than a claim, it keeps the delivery open
    _count("told"),  # what `wakes` was at the last late fact of the round: newer than a claim, it opens what failed
    _count("captures_begun"),
    Column("chain", Words),  # the hash of the last line of its history
)
Index(
    "deliveries_due",
    deliveries.c.account_id,
    deliveries.c.lane,
    deliveries.c.due_at,
    postgresql_where=text("due_at IS NOT NULL"),
    sqlite_where=text("due_at IS NOT NULL"),
)
Index("deliveries_transaction_id", deliveries.c.transaction_id)
Index("deliveries_newest", deliveries.c.received_at.desc(), deliveries.c.id)
Index("deliveries_outcome", deliveries.c.outcome, deliveries.c.received_at.desc(), deliveries.c.id)
# Those that were stopped, or voided when they were complete: few, and looked for by when it was.
Index(
    "deliveries_cancelled",
    deliveries.c.closed_at,
    postgresql_where=text("outcome = 'cancelled'"),
    sqlite_where=text("outcome = 'cancelled'"),
)
Index(
    "deliveries_voided",
    deliveries.c.voided_at,
    postgresql_where=text("voided_at IS NOT NULL"),
    sqlite_where=text("voided_at IS NOT NULL"),
)
for _key in (  # partial: every row begins without one, and a commit writes each index it touches
    deliveries.c.invoice_number,
    deliveries.c.merchant_reference,
    deliveries.c.recipient_key,
    deliveries.c.organization_key,
):
    _known = text(f"{_key.name} IS NOT NULL")
    Index(f"deliveries_{_key.name}", _key, postgresql_where=_known, sqlite_where=_known)
Index(
    "deliveries_personal",
    deliveries.c.closed_at,
    postgresql_where=text("erased_at IS NULL AND closed_at IS NOT NULL"),
    sqlite_where=text("erased_at IS NULL AND closed_at IS NOT NULL"),
)

# One transaction at the provider, pointing at its delivery: one each for ordinary invoices, many for a grouped one.
transactions = Table(
    "transactions",
    metadata,
    Column("id", Words, primary_key=True),
    _delivery_id(),
    Column("account_id", Words, nullable=False),
    Column("received_at", Instant, nullable=False),
    Column("product_type", Words),
    Column("amount", BigInteger),
    Column("currency", Words),
    Column("merchant_reference", Words),
)
Index("transactions_delivery_id", transactions.c.delivery_id)

# A transaction that is billed together with others. Its delivery's row is its lock as well.
purchases = Table(
    "purchases",
    metadata,
    Column("transaction_id", Words, ForeignKey("deliveries.id"), primary_key=True),
    Column("account_id", Words, nullable=False),
    # A digest of what follows, as far as the currency: who is billed together. It stays when that is erased.
    Column("group", Words, nullable=False),
    Column("business_name", Words, nullable=False),
    Column("organization_number", Words, nullable=False),
    Column("country", Words, nullable=False),
    Column("customer_reference", Words, nullable=False),
    Column("interval", Words, nullable=False),
    Column("period_start", Day, nullable=False),
    Column("currency", Words, nullable=False),
    Column("either_period", Boolean, nullable=False),
    Column("interval_from", Words, nullable=False),
    Column("days_until_due", BigInteger, nullable=False),
    Column("days_from", Words, nullable=False),
    Column("purchased_at", Instant, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("channel", Words, nullable=False),
    Column("decided_by", Words, nullable=False),
    Column("merchant_reference", Words),
    Column("recipient_key", Words),
    Column("invoice_id", Words),
    Column("invoice_number", Words),
    Column("invoice_date", Day),
    Column("due_date", Day),
    Column("looked_at", Instant),
    Column("remark", Words),
)
Index("purchases_group", purchases.c.group)
Index("purchases_period", purchases.c.period_start)
_billed = text("invoice_id IS NOT NULL")
_remarked = text("remark IS NOT NULL")
Index("purchases_remark", purchases.c.account_id, postgresql_where=_remarked, sqlite_where=_remarked)
Index("purchases_invoice_id", purchases.c.invoice_id, postgresql_where=_billed, sqlite_where=_billed)

# One intent to reach one recipient over one channel.
sends = Table(
    "sends",
    metadata,
    Column("id", Words, primary_key=True),
    _delivery_id(),
    _count("ordinal"),  # which send of the delivery it is, from 1
    _count("round"),
    Column("channel", Words, nullable=False),
    Column("recipient", Words, nullable=False),
    Column("recipient_key", Words, nullable=False),
    Column("purpose", Words, nullable=False),
    Column("key", Words, nullable=False),
    Column("dated", Instant, nullable=False),
    Column("message_id", Words, nullable=False),
    Column("sha256", Words, nullable=False),
    Column("begun_at", Instant, nullable=False),
    Column("outcome", Words, nullable=False),
    Column("answer", Words),
    Column("proof", Words),
    Column("settled_at", Instant),
    Column("document_sha256", Words),
    Column("template_version", Words),
    Column("remote_id", Words),
    Column("reported_at", Instant),
    Column("lease_token", Words),  # of the claim that began it: settled under another or none, it is settled late
)
Index("sends_delivery_id", sends.c.delivery_id)
Index("sends_recipient_key", sends.c.recipient_key)
Index(
    "sends_open",
    sends.c.delivery_id,
    sends.c.recipient_key,
    sends.c.channel,
    unique=True,
    postgresql_where=text("outcome = 'open'"),
    sqlite_where=text("outcome = 'open'"),
)

# By what a report may name the message that it is about.
Index("sends_message_id", sends.c.message_id)
Index("sends_key", sends.c.key)
_named = text("remote_id IS NOT NULL")
Index("sends_remote_id", sends.c.remote_id, postgresql_where=_named, sqlite_where=_named)

# What another party reported of a message; also of one whose send is not written yet.
receipts = Table(
    "receipts",
    metadata,
    Column("account_id", Words, primary_key=True),
    Column("channel", Words, primary_key=True),
    Column("event_id", Words, primary_key=True),
    Column("reference", Words, nullable=False),
    Column("fate", Words, nullable=False),
    Column("at", Instant),
    Column("detail", Words),
    Column("received_at", Instant, nullable=False),
    Column("send_id", Words),  # NULL until a send is found that it is about
)
_unmatched = text("send_id IS NULL")
Index(
    "receipts_unmatched",
    receipts.c.account_id,
    receipts.c.received_at,
    postgresql_where=_unmatched,
    sqlite_where=_unmatched,
)

# When the next message of a lane with a pace may go, by the database's clock.
paces = Table(
    "paces",
    metadata,
    Column("account_id", Words, primary_key=True),
    Column("lane", Words, primary_key=True),
    Column("next_at", Instant, nullable=False),
)

# Invoice pages: one link to one delivery's document. The token itself is only in what is sealed.
links = Table(
    "links",
    metadata,
    Column("token_hash", Words, primary_key=True),  # SHA-256, hex
    _delivery_id(),
    Column("account_id", Words, nullable=False),
    Column("document_sha256", Words, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # the token and what the page shows, under LINK_KEY
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Column("opened_at", Instant),  # a hint, never a proof: scanners open links, too
    Column("renewed_at", Instant),  # when a new link was last asked for on its page
)
Index("links_delivery_id", links.c.delivery_id)
Index("links_expires_at", links.c.expires_at)

# Documents behind links, sealed under LINK_KEY, where they are kept in the database.
documents = Table(
    "documents",
    metadata,
    Column("name", Words, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)

# One intent to capture one transaction.
captures = Table(
    "captures",
    metadata,
    Column("id", Words, primary_key=True),
    _delivery_id(),
    _count("ordinal"),
    Column("transaction_id", Words, nullable=False),
    Column("reference", Words, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("begun_at", Instant, nullable=False),
    Column("outcome", Words, nullable=False),
    Column("event_request_id", Words),
    Column("event_id", Words),
    Column("detail", Words),
    Column("settled_at", Instant),
    Column("lease_token", Words),
)
Index("captures_delivery_id", captures.c.delivery_id)
Index(
    "captures_open",
    captures.c.transaction_id,
    unique=True,
    postgresql_where=text("outcome IN ('open', 'pending')"),
    sqlite_where=text("outcome IN ('open', 'pending')"),
)

# What happened, append-only.
history = Table(
    "history",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), Identity(), primary_key=True),
    _delivery_id(),
    Column("at", Instant, nullable=False),
    Column("step", Words, nullable=False),
    Column("result", Words, nullable=False),
    Column("channel", Words),
    Column("detail", Words),
    Column("message_id", Words),
    # The line's place in the delivery's hash chain: over `detail_hash` (salted) instead of `detail`, so that what is
    # personal can be erased without breaking it. NULL in lines of earlier versions.
    Column("salt", Words),
    Column("detail_hash", Words),
    Column("hash", Words),
)
Index("history_delivery_id", history.c.delivery_id, history.c.id)

# A lane (a channel's name, or the provider's) that is at fault or held by a person: a row is a pause in force.
pauses = Table(
    "pauses",
    metadata,
    Column("account_id", Words, primary_key=True),
    Column("key", Words, primary_key=True),
    Column("reason", Words, nullable=False),
    Column("since", Instant, nullable=False),
    Column("paused_by", Words),  # the person who holds it; NULL when it is at fault
    Column("next_probe_at", Instant),
    _count("probes"),
    Column("probe_token", Words),
    Column("probe_until", Instant),
)

# Work that one process does for all, by lease. The row `birth` says when this record was begun.
jobs = Table(
    "jobs",
    metadata,
    Column("name", Words, primary_key=True),
    Column("leased_until", Instant),
    Column("token", Words),
    Column("last_run_at", Instant),
    Column("note", Words),
)

# What a person was told of, or is to be told: a row is one trouble (an alarm's name and whom it is about), once.
alerts = Table(
    "alerts",
    metadata,
    Column("account_id", Words, primary_key=True),
    Column("way", Words, primary_key=True),  # by which people are told: each gets everything
    Column("name", Words, primary_key=True),
    Column("subject", Words, primary_key=True),  # a delivery's id, a lane, or empty
    Column("detail", Words),
    Column("first_at", Instant, nullable=False),  # when it was found, or found again
    Column("told_at", Instant),  # before `first_at`: it went away, came back and is yet to be told
    Column("gone_at", Instant),
)


def upsert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that takes `on_conflict_…`, which both databases have and no common statement does."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
