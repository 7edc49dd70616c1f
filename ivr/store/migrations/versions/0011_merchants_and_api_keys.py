"""merchants and api keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "merchants",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchants")),
        sa.UniqueConstraint("name", name=op.f("uq_merchants_name")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=80), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_api_keys_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_keys_merchant_id"), ["merchant_id"], unique=False)

    op.create_table(
        "merchant_customers",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("reference", sa.String(length=64), nullable=False),
        sa.Column("e164", sa.String(length=16), nullable=True),
        sa.Column("number", sa.String(length=7), nullable=True),
        sa.Column("customer_id", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_merchant_customers_customer_id_customers")
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_merchant_customers_merchant_id_merchants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchant_customers")),
        sa.UniqueConstraint("merchant_id", "reference", name=op.f("uq_merchant_customers_merchant_id_reference")),
    )
    with op.batch_alter_table("merchant_customers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_merchant_customers_customer_id"), ["customer_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_merchant_customers_e164"), ["e164"], unique=False)

    op.create_table(
        "merchant_origins",
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("origin", sa.String(length=300), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_merchant_origins_merchant_id_merchants")
        ),
        sa.PrimaryKeyConstraint("merchant_id", "origin", name=op.f("pk_merchant_origins")),
    )
    op.create_table(
        "merchant_texts",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("text", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("approved_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_merchant_texts_merchant_id_merchants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchant_texts")),
        sa.UniqueConstraint("merchant_id", "text", name=op.f("uq_merchant_texts_merchant_id_text")),
    )
    op.create_table(
        "merchant_bills",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("merchant_customer_id", sa.String(length=16), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("description", sa.String(length=80), nullable=False),
        sa.Column("ship_to", sa.String(length=200), nullable=True),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hold_only", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["merchant_customer_id"],
            ["merchant_customers.id"],
            name=op.f("fk_merchant_bills_merchant_customer_id_merchant_customers"),
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_merchant_bills_merchant_id_merchants")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchant_bills")),
    )
    with op.batch_alter_table("merchant_bills", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_merchant_bills_merchant_customer_id"), ["merchant_customer_id"], unique=False
        )
        batch_op.create_index(batch_op.f("ix_merchant_bills_merchant_id"), ["merchant_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("merchant_bills", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_merchant_bills_merchant_id"))
        batch_op.drop_index(batch_op.f("ix_merchant_bills_merchant_customer_id"))

    op.drop_table("merchant_bills")
    op.drop_table("merchant_texts")
    op.drop_table("merchant_origins")
    with op.batch_alter_table("merchant_customers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_merchant_customers_e164"))
        batch_op.drop_index(batch_op.f("ix_merchant_customers_customer_id"))

    op.drop_table("merchant_customers")
    with op.batch_alter_table("api_keys", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_keys_merchant_id"))

    op.drop_table("api_keys")
    op.drop_table("merchants")
