"""Fingerprints of past utterances, and when a voiceprint was last used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "voice_secrets",
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_voice_secrets_customer_id_customers")
        ),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_voice_secrets")),
    )
    op.create_table(
        "utterance_prints",
        sa.Column("call_sid", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("consent_id", sa.String(length=16), nullable=False),
        sa.Column("scheme", sa.String(length=32), nullable=False),
        sa.Column("channel", sa.String(length=32), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["consent_id"], ["consents.id"], name=op.f("fk_utterance_prints_consent_id_consents")
        ),
        sa.ForeignKeyConstraint(
            ["customer_id"], ["customers.id"], name=op.f("fk_utterance_prints_customer_id_customers")
        ),
        sa.PrimaryKeyConstraint("call_sid", "step", "customer_id", name=op.f("pk_utterance_prints")),
    )
    with op.batch_alter_table("utterance_prints", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_utterance_prints_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_utterance_prints_customer_id"), ["customer_id"], unique=False)
    with op.batch_alter_table("voiceprints", schema=None) as batch_op:
        batch_op.add_column(sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("voiceprints", schema=None) as batch_op:
        batch_op.drop_column("last_used_at")
    with op.batch_alter_table("utterance_prints", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_utterance_prints_customer_id"))
        batch_op.drop_index(batch_op.f("ix_utterance_prints_at"))

    op.drop_table("utterance_prints")
    op.drop_table("voice_secrets")
