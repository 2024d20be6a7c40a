"""Doubt, held deliveries, pauses by account, alerts, the history's hash chain, erasure."""  # noqa: INP001 - loaded by its path

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    for column in _of_deliveries():
        op.add_column("deliveries", column)
    op.drop_index("deliveries_outcome", "deliveries")  # in the order of a listing, to its last column
    op.create_index("deliveries_outcome", "deliveries", ["outcome", sa.text("received_at DESC"), "id"])
    for name in ("recipient_key", "organization_key"):
        known = sa.text(f"{name} IS NOT NULL")
        op.create_index(f"deliveries_{name}", "deliveries", [name], postgresql_where=known, sqlite_where=known)
    not_erased = sa.text("erased_at IS NULL AND closed_at IS NOT NULL")
    op.create_index(
        "deliveries_personal", "deliveries", ["closed_at"], postgresql_where=not_erased, sqlite_where=not_erased
    )
    for name, indexed, where in (
        ("deliveries_cancelled", "closed_at", sa.text("outcome = 'cancelled'")),
        ("deliveries_voided", "voided_at", sa.text("voided_at IS NOT NULL")),
    ):
        op.create_index(name, "deliveries", [indexed], postgresql_where=where, sqlite_where=where)
    if op.get_bind().dialect.name == "postgresql":
        # A row is written some seven times, and only what has room beside it is spared all the indexes.
        op.execute("ALTER TABLE deliveries SET (fillfactor = 70)")
    _words("sends", "document_sha256", "template_version")
    op.create_index("sends_recipient_key", "sends", ["recipient_key"])
    _words("history", "salt", "detail_hash", "hash")
    _pauses()
    op.create_table(
        "alerts",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("account_id", "way", "name", "subject")),
        sa.Column("detail", sa.Text),
        sa.Column("first_at", sa.BigInteger, nullable=False),
        sa.Column("told_at", sa.BigInteger),
        sa.Column("gone_at", sa.BigInteger),
    )


def _of_deliveries() -> list[sa.Column[object]]:
    return [
        sa.Column("source", sa.Text, nullable=False, server_default=sa.text("'callback'")),
        sa.Column("released", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("even_late", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("stated_round", sa.BigInteger),
        sa.Column("organization_key", sa.Text),
        sa.Column("erased_at", sa.BigInteger),
        sa.Column("chain", sa.Text),
    ]


def _words(table: str, *names: str) -> None:
    for name in names:
        op.add_column(table, sa.Column(name, sa.Text))


def _pauses() -> None:
    # Nothing was ever in it: the first version had the table and no way to fill it.
    op.drop_table("pauses")
    op.create_table(
        "pauses",
        *(sa.Column(name, sa.Text, primary_key=True) for name in ("account_id", "key")),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("paused_by", sa.Text),
        sa.Column("next_probe_at", sa.BigInteger),
        sa.Column("probes", sa.BigInteger, nullable=False, server_default=sa.text("0")),
        sa.Column("probe_token", sa.Text),
        sa.Column("probe_until", sa.BigInteger),
    )
