"""apps, their bindings and charges."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "apps",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("merchant_id", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("prompt_file", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["merchant_id"], ["merchants.id"], name=op.f("fk_apps_merchant_id_merchants")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_apps")),
        sa.UniqueConstraint("merchant_id", "name", name=op.f("uq_apps_merchant_id_name")),
    )
    op.create_table(
        "app_bindings",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("app_id", sa.String(length=16), nullable=False),
        sa.Column("merchant_customer_id", sa.String(length=16), nullable=False),
        sa.Column("customer_id", sa.String(length=16), nullable=True),
        sa.Column("card_id", sa.String(length=16), nullable=True),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("limit_minor", sa.BigInteger(), nullable=True),
        sa.Column("day_limit_minor", sa.BigInteger(), nullable=True),
        sa.Column("yes_limit_minor", sa.BigInteger(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("bound_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unbound_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("fk_app_bindings_app_id_apps")),
        sa.ForeignKeyConstraint(
            ["merchant_customer_id"],
            ["merchant_customers.id"],
            name=op.f("fk_app_bindings_merchant_customer_id_merchant_customers"),
        ),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_app_bindings_customer_id_customers")),
        sa.ForeignKeyConstraint(["card_id"], ["cards.id"], name=op.f("fk_app_bindings_card_id_cards")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_app_bindings")),
    )
    with op.batch_alter_table("app_bindings", schema=None) as batch_op:
        for column in ("app_id", "merchant_customer_id", "customer_id"):
            batch_op.create_index(batch_op.f(f"ix_app_bindings_{column}"), [column], unique=False)

    op.create_table(
        "app_charges",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("app_id", sa.String(length=16), nullable=False),
        sa.Column("binding_id", sa.String(length=16), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("description", sa.String(length=80), nullable=False),
        sa.Column("by_voice", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("payment_id", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["app_id"], ["apps.id"], name=op.f("fk_app_charges_app_id_apps")),
        sa.ForeignKeyConstraint(
            ["binding_id"], ["app_bindings.id"], name=op.f("fk_app_charges_binding_id_app_bindings")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_app_charges_payment_id_payments")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_app_charges")),
    )
    with op.batch_alter_table("app_charges", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_app_charges_app_id"), ["app_id"], unique=False)
        batch_op.create_index("ix_app_charges_binding_id_created_at", ["binding_id", "created_at"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("app_charges", schema=None) as batch_op:
        batch_op.drop_index("ix_app_charges_binding_id_created_at")
        batch_op.drop_index(batch_op.f("ix_app_charges_app_id"))

    op.drop_table("app_charges")
    with op.batch_alter_table("app_bindings", schema=None) as batch_op:
        for column in ("customer_id", "merchant_customer_id", "app_id"):
            batch_op.drop_index(batch_op.f(f"ix_app_bindings_{column}"))

    op.drop_table("app_bindings")
    op.drop_table("apps")
