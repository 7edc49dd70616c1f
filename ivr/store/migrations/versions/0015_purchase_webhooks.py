"""Webhook messages of purchases that end without a payment; an index for those that expire."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.alter_column("payment_id", existing_type=sa.String(length=16), nullable=True)
        batch_op.add_column(sa.Column("purchase_id", sa.String(length=16), nullable=True))
        batch_op.create_foreign_key(
            batch_op.f("fk_webhook_deliveries_purchase_id_purchases"), "purchases", ["purchase_id"], ["id"]
        )
        batch_op.create_unique_constraint(
            batch_op.f("uq_webhook_deliveries_purchase_id_endpoint_id"), ["purchase_id", "endpoint_id"]
        )
        batch_op.create_check_constraint(
            batch_op.f("ck_webhook_deliveries_of_one"), "(payment_id IS NULL) <> (purchase_id IS NULL)"
        )
    open_ = sa.text("result IS NULL AND payment_id IS NULL")
    op.create_index(
        "ix_purchases_open", "purchases", ["expires_at"], unique=False, sqlite_where=open_, postgresql_where=open_
    )


def downgrade() -> None:
    op.drop_index("ix_purchases_open", table_name="purchases")
    op.execute("DELETE FROM webhook_deliveries WHERE payment_id IS NULL")
    with op.batch_alter_table("webhook_deliveries", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f("ck_webhook_deliveries_of_one"), type_="check")
        batch_op.drop_constraint(batch_op.f("uq_webhook_deliveries_purchase_id_endpoint_id"), type_="unique")
        batch_op.drop_constraint(batch_op.f("fk_webhook_deliveries_purchase_id_purchases"), type_="foreignkey")
        batch_op.drop_column("purchase_id")
        batch_op.alter_column("payment_id", existing_type=sa.String(length=16), nullable=False)
