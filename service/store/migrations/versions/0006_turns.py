"""Whose turn it is stands with since when, and reports of others' mails are found by when they came."""  # noqa: INP001 - loaded by its path

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("turn", sa.Text))
    op.execute("UPDATE deliveries SET turn = channel WHERE channel_since IS NOT NULL")
    unmatched = sa.text("send_id IS NULL")
    op.drop_index("receipts_unmatched", "receipts")
    columns = ["account_id", "received_at"]
    op.create_index("receipts_unmatched", "receipts", columns, postgresql_where=unmatched, sqlite_where=unmatched)
