"""Indexes that a new delivery has no part in are not written for it."""  # noqa: INP001 - loaded by its path

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name in ("invoice_number", "merchant_reference"):
        known = sa.text(f"{name} IS NOT NULL")
        op.drop_index(f"deliveries_{name}", "deliveries")
        op.create_index(f"deliveries_{name}", "deliveries", [name], postgresql_where=known, sqlite_where=known)
