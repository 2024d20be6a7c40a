"""Purchases that are billed together; those that earlier versions skipped are looked at again."""  # noqa: INP001 - loaded by its path

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_TEXTS = "account_id group business_name organization_number country customer_reference interval period_start currency"
_LATER = "merchant_reference recipient_key invoice_id invoice_number invoice_date due_date remark"
_SKIPPED = """
    UPDATE deliveries
    SET outcome = 'open', kind = 'invoice', reason = NULL, lane = 'provider', closed_at = NULL, postponed = 0,
        due_at = received_at, source = 'reconcile'
    WHERE outcome = 'skipped' AND product_type = 'kravia.invoice_b2b_grouped' AND erased_at IS NULL
"""


def upgrade() -> None:
    op.create_table(
        "purchases",
        sa.Column("transaction_id", sa.Text, sa.ForeignKey("deliveries.id"), primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in _TEXTS.split()),
        sa.Column("either_period", sa.Boolean, nullable=False),
        sa.Column("interval_from", sa.Text, nullable=False),
        sa.Column("days_until_due", sa.BigInteger, nullable=False),
        sa.Column("days_from", sa.Text, nullable=False),
        sa.Column("purchased_at", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        *(sa.Column(name, sa.Text) for name in _LATER.split()),
        sa.Column("looked_at", sa.BigInteger),
    )
    op.create_index("purchases_group", "purchases", ["group"])
    op.create_index("purchases_period", "purchases", ["period_start"])
    billed = sa.text("invoice_id IS NOT NULL")
    op.create_index("purchases_invoice_id", "purchases", ["invoice_id"], postgresql_where=billed, sqlite_where=billed)
    remarked = sa.text("remark IS NOT NULL")
    op.create_index("purchases_remark", "purchases", ["account_id"], postgresql_where=remarked, sqlite_where=remarked)
    op.execute(_SKIPPED)
