"""Several channels: what one has fallen from, what others report of messages, pace, and pages behind links."""  # noqa: INP001 - loaded by its path

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("fallen", sa.Text, nullable=False, server_default=sa.text("''")))
    op.add_column("deliveries", sa.Column("channel_since", sa.BigInteger))
    op.add_column("deliveries", sa.Column("paced", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("deliveries", sa.Column("as_link", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("sends", sa.Column("remote_id", sa.Text))
    op.add_column("sends", sa.Column("reported_at", sa.BigInteger))
    op.create_index("sends_message_id", "sends", ["message_id"])
    op.create_index("sends_key", "sends", ["key"])
    named = sa.text("remote_id IS NOT NULL")
    op.create_index("sends_remote_id", "sends", ["remote_id"], postgresql_where=named, sqlite_where=named)
    _receipts()
    op.create_table(
        "paces",
        sa.Column("account_id", sa.Text, primary_key=True),
        sa.Column("lane", sa.Text, primary_key=True),
        sa.Column("next_at", sa.BigInteger, nullable=False),
    )
    _links()


def _receipts() -> None:
    op.create_table(
        "receipts",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("account_id", "channel", "event_id")),
        sa.Column("reference", sa.Text, nullable=False),
        sa.Column("fate", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger),
        sa.Column("detail", sa.Text),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("send_id", sa.Text),
    )
    unmatched = sa.text("send_id IS NULL")
    op.create_index("receipts_unmatched", "receipts", ["reference"], postgresql_where=unmatched, sqlite_where=unmatched)


def _links() -> None:
    op.create_table(
        "links",
        sa.Column("token_hash", sa.Text, primary_key=True),
        sa.Column("delivery_id", sa.Text, sa.ForeignKey("deliveries.id"), nullable=False),
        sa.Column("account_id", sa.Text, nullable=False),
        sa.Column("document_sha256", sa.Text, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        *(sa.Column(name, sa.BigInteger) for name in ("revoked_at", "opened_at", "renewed_at")),
    )
    op.create_index("links_delivery_id", "links", ["delivery_id"])
    op.create_index("links_expires_at", "links", ["expires_at"])
    op.create_table(
        "documents",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
