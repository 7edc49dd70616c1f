"""Commands, books and refunds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_FAILED = "state NOT IN ('cancelled', 'expired', 'refused', 'voided')"
_FAILED_BEFORE = "state NOT IN ('refused', 'voided')"
_ROW_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _live_bill_index(_FAILED)
    op.create_table(
        "payment_commands",
        sa.Column("key", sa.String(length=160), nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("input_hash", sa.String(length=64), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=True),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_payment_commands")),
    )
    op.create_table(
        "transfers",
        sa.Column("id", _ROW_NUMBER, nullable=False),
        sa.Column("cause", sa.String(length=64), nullable=False),
        sa.Column("payment_id", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("debit", sa.String(length=220), nullable=False),
        sa.Column("credit", sa.String(length=220), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_transfers_positive")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_transfers_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transfers")),
        sa.UniqueConstraint("cause", name=op.f("uq_transfers_cause")),
    )
    op.create_index(op.f("ix_transfers_payment_id"), "transfers", ["payment_id"])
    op.create_index(op.f("ix_transfers_at"), "transfers", ["at"])
    op.create_table(
        "refunds",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("payment_id", sa.String(length=16), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("bank_key", sa.String(length=32), nullable=False),
        sa.Column("why", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_refunds_positive")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_refunds_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refunds")),
        sa.UniqueConstraint("bank_key", name=op.f("uq_refunds_bank_key")),
    )
    op.create_index(op.f("ix_refunds_payment_id"), "refunds", ["payment_id"])
    # What was held and paid before there were books.
    _open_books("hold", "held:", "pending:", "p.state IN ('authorised', 'unknown') AND p.bank_reference IS NOT NULL")
    _open_books("post", "bank:", "merchant:", "p.state = 'paid'")


def downgrade() -> None:
    op.drop_table("refunds")
    op.drop_table("transfers")
    op.drop_table("payment_commands")
    _live_bill_index(_FAILED_BEFORE)


def _live_bill_index(where: str) -> None:
    op.drop_index("uq_payments_live_bill", "payments")
    op.create_index(
        "uq_payments_live_bill",
        "payments",
        ["bill_id"],
        unique=True,
        sqlite_where=sa.text(where),
        postgresql_where=sa.text(where),
    )


def _open_books(kind: str, debit: str, credit: str, where: str) -> None:
    op.execute(
        "INSERT INTO transfers (cause, payment_id, kind, debit, credit, amount_minor, currency, at)"
        f" SELECT p.id || '\\:{kind}', p.id, '{kind}', '{debit}' || p.bank, '{credit}' || b.merchant,"
        " p.amount_minor, p.currency, p.updated_at"
        f" FROM payments p JOIN bills b ON b.id = p.bill_id WHERE {where}"
    )
