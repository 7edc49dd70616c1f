"""purchases and card requests."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "merchant_pages",
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("page", sa.String(length=1000), nullable=False),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_merchant_pages_merchant_id_merchants")
        ),
        sa.PrimaryKeyConstraint("merchant_id", "kind", name=op.f("pk_merchant_pages")),
    )
    op.create_table(
        "card_requests",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("merchant_customer_id", sa.String(length=16), nullable=False),
        sa.Column("bank_token", sa.String(length=128), nullable=True),
        sa.Column("exp_month", sa.Integer(), nullable=True),
        sa.Column("exp_year", sa.Integer(), nullable=True),
        sa.Column("customer_id", sa.String(length=16), nullable=True),
        sa.Column("card_id", sa.String(length=16), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["card_id"], ["cards.id"], name=op.f("fk_card_requests_card_id_cards")),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_card_requests_customer_id_customers")),
        sa.ForeignKeyConstraint(
            ["merchant_customer_id"],
            ["merchant_customers.id"],
            name=op.f("fk_card_requests_merchant_customer_id_merchant_customers"),
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_card_requests_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_card_requests")),
    )
    with op.batch_alter_table("card_requests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_card_requests_customer_id"), ["customer_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_card_requests_merchant_id"), ["merchant_id"], unique=False)

    op.create_table(
        "purchase_accounts",
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("limit_minor", sa.BigInteger(), nullable=False),
        sa.Column("card_id", sa.String(length=16), nullable=False),
        sa.Column("bank", sa.String(length=32), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("blocked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["card_id"], ["cards.id"], name=op.f("fk_purchase_accounts_card_id_cards")),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_purchase_accounts_customer_id_customers")
        ),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_purchase_accounts")),
    )
    op.create_table(
        "account_merchants",
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("refused_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["customer_id"],
            ["purchase_accounts.customer_id"],
            name=op.f("fk_account_merchants_customer_id_purchase_accounts"),
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants.id"], name=op.f("fk_account_merchants_merchant_id_merchants")
        ),
        sa.PrimaryKeyConstraint("customer_id", "merchant_id", name=op.f("pk_account_merchants")),
    )
    op.create_table(
        "purchases",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("merchant_customer_id", sa.String(length=16), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("product_kind", sa.String(length=40), nullable=False),
        sa.Column("description", sa.String(length=80), nullable=False),
        sa.Column("ship_to", sa.String(length=200), nullable=True),
        sa.Column("result_url", sa.String(length=1000), nullable=True),
        sa.Column("page", sa.String(length=8), nullable=False),
        sa.Column("jump_url", sa.String(length=1000), nullable=True),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("result", sa.String(length=24), nullable=True),
        sa.Column("customer_id", sa.String(length=16), nullable=True),
        sa.Column("payment_id", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_purchases_customer_id_customers")),
        sa.ForeignKeyConstraint(
            ["merchant_customer_id"],
            ["merchant_customers.id"],
            name=op.f("fk_purchases_merchant_customer_id_merchant_customers"),
        ),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_purchases_merchant_id_merchants")),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_purchases_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_purchases")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_purchases_payment_id")),
    )
    with op.batch_alter_table("purchases", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_purchases_merchant_customer_id"), ["merchant_customer_id"], unique=False)
        batch_op.create_index("ix_purchases_merchant_id_created_at", ["merchant_id", "created_at"], unique=False)

    op.add_column("bills", sa.Column("one_payment", sa.Boolean(), server_default=sa.false(), nullable=False))


def downgrade() -> None:
    op.drop_column("bills", "one_payment")

    with op.batch_alter_table("purchases", schema=None) as batch_op:
        batch_op.drop_index("ix_purchases_merchant_id_created_at")
        batch_op.drop_index(batch_op.f("ix_purchases_merchant_customer_id"))

    op.drop_table("purchases")
    op.drop_table("account_merchants")
    op.drop_table("purchase_accounts")
    with op.batch_alter_table("card_requests", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_card_requests_merchant_id"))
        batch_op.drop_index(batch_op.f("ix_card_requests_customer_id"))

    op.drop_table("card_requests")
    op.drop_table("merchant_pages")
