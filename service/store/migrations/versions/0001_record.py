"""The record: deliveries, transactions, sends, captures, history, pauses and jobs."""  # noqa: INP001 - loaded by its path

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    _deliveries()
    _transactions()
    _sends()
    _captures()
    _history()
    _pauses_and_jobs()


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"))


def _needed(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _word(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text)


def _instant(name: str, *, nullable: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _id() -> sa.Column[str]:
    return sa.Column("id", sa.Text, primary_key=True)


def _delivery_id() -> sa.Column[str]:
    return sa.Column("delivery_id", sa.Text, sa.ForeignKey("deliveries.id"), nullable=False)


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        _id(),
        *map(_needed, ("account_id", "transaction_id")),
        _instant("received_at", nullable=False),
        *map(_needed, ("kind", "outcome")),
        _word("reason"),
        _needed("lane"),
        *map(_instant, ("due_at", "no_send_before")),
        *map(_count, ("attempt", "claims", "errors", "postponed", "bad_documents", "round")),
        _word("send_to"),
        sa.Column("closed_waiting", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("patience_used", sa.Double, nullable=False, server_default=sa.text("0.0")),
        _instant("patience_since"),
        *map(_word, ("decided_by", "product_type", "invoice_number", "merchant_reference")),
        sa.Column("amount", sa.BigInteger),
        *map(_word, ("currency", "channel", "recipient", "recipient_key")),
        _instant("delivered_at"),
        _word("delivery_proof"),
        *map(_instant, ("captured_at", "captured_known_at", "voided_at", "closed_at")),
        _word("lease_token"),
        _instant("leased_until"),
        *map(_count, ("wakes", "seen", "asked", "told", "captures_begun")),
    )
    due = sa.text("due_at IS NOT NULL")
    op.create_index(
        "deliveries_due", "deliveries", ["account_id", "lane", "due_at"], postgresql_where=due, sqlite_where=due
    )
    for name in ("transaction_id", "invoice_number", "merchant_reference"):
        op.create_index(f"deliveries_{name}", "deliveries", [name])
    op.create_index("deliveries_newest", "deliveries", [sa.text("received_at DESC"), "id"])
    op.create_index("deliveries_outcome", "deliveries", ["outcome", "received_at"])


def _transactions() -> None:
    op.create_table(
        "transactions",
        _id(),
        _delivery_id(),
        _needed("account_id"),
        _instant("received_at", nullable=False),
        _word("product_type"),
        sa.Column("amount", sa.BigInteger),
        *map(_word, ("currency", "merchant_reference")),
    )
    op.create_index("transactions_delivery_id", "transactions", ["delivery_id"])


def _sends() -> None:
    op.create_table(
        "sends",
        _id(),
        _delivery_id(),
        *map(_count, ("ordinal", "round")),
        *map(_needed, ("channel", "recipient", "recipient_key", "purpose", "key")),
        _instant("dated", nullable=False),
        *map(_needed, ("message_id", "sha256")),
        _instant("begun_at", nullable=False),
        _needed("outcome"),
        *map(_word, ("answer", "proof")),
        _instant("settled_at"),
        _word("lease_token"),
    )
    op.create_index("sends_delivery_id", "sends", ["delivery_id"])
    still_open = sa.text("outcome = 'open'")
    op.create_index(
        "sends_open",
        "sends",
        ["delivery_id", "recipient_key", "channel"],
        unique=True,
        postgresql_where=still_open,
        sqlite_where=still_open,
    )


def _captures() -> None:
    op.create_table(
        "captures",
        _id(),
        _delivery_id(),
        _count("ordinal"),
        *map(_needed, ("transaction_id", "reference")),
        sa.Column("amount", sa.BigInteger, nullable=False),
        _instant("begun_at", nullable=False),
        _needed("outcome"),
        *map(_word, ("event_request_id", "event_id", "detail")),
        _instant("settled_at"),
        _word("lease_token"),
    )
    op.create_index("captures_delivery_id", "captures", ["delivery_id"])
    unanswered = sa.text("outcome IN ('open', 'pending')")
    op.create_index(
        "captures_open",
        "captures",
        ["transaction_id"],
        unique=True,
        postgresql_where=unanswered,
        sqlite_where=unanswered,
    )


def _history() -> None:
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
        _delivery_id(),
        _instant("at", nullable=False),
        *map(_needed, ("step", "result")),
        *map(_word, ("channel", "detail", "message_id")),
    )
    op.create_index("history_delivery_id", "history", ["delivery_id", "id"])


def _pauses_and_jobs() -> None:
    op.create_table(
        "pauses",
        sa.Column("key", sa.Text, primary_key=True),
        _needed("reason"),
        _instant("since", nullable=False),
        _word("paused_by"),
        _instant("next_probe_at"),
        _count("probes"),
        _word("probe_token"),
        _instant("probe_until"),
    )
    op.create_table(
        "jobs",
        sa.Column("name", sa.Text, primary_key=True),
        _instant("leased_until"),
        _word("token"),
        _instant("last_run_at"),
        _word("note"),
    )
