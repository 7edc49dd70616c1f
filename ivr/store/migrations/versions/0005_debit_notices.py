"""Holds that are posted later, whole or in part, and the bank's notices of debits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_CONFIRMED = sa.text("reason IS NULL")


def upgrade() -> None:
    # With a default, so that processes of the release before can still add rows.
    op.add_column("bills", sa.Column("hold_only", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("payments", sa.Column("hold_only", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("payments", sa.Column("hold_expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("payments", sa.Column("post_minor", sa.BigInteger(), nullable=True))
    op.create_table(
        "debit_notices",
        sa.Column("bank", sa.String(length=32), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("payment_id", sa.String(length=16), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("reference", sa.String(length=128), nullable=True),
        sa.Column("reason", sa.String(length=32), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["payment_id"], ["payments.id"], name=op.f("fk_debit_notices_payment_id_payments")
        ),
        sa.PrimaryKeyConstraint("bank", "id", name=op.f("pk_debit_notices")),
    )
    op.create_index(
        "uq_debit_notices_confirmed",
        "debit_notices",
        ["payment_id"],
        unique=True,
        sqlite_where=_CONFIRMED,
        postgresql_where=_CONFIRMED,
    )


def downgrade() -> None:
    op.drop_table("debit_notices")
    for column in ("post_minor", "hold_expires_at", "hold_only"):
        op.drop_column("payments", column)
    op.drop_column("bills", "hold_only")
