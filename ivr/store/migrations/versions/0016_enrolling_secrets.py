"""When an enrolment began to use a secret, so that no purge takes it away meanwhile."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("voice_secrets", sa.Column("enrolling_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("voice_secrets", schema=None) as batch_op:
        batch_op.drop_column("enrolling_at")
