"""Who must agree: appointments, policies, addresses, requests, links, sessions, freezes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "addresses",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("label", sa.String(length=40), nullable=False),
        sa.Column("text", sa.String(length=200), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_addresses_customer_id_customers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_addresses")),
    )
    with op.batch_alter_table("addresses", schema=None) as batch_op:
        batch_op.create_index(
            "uq_addresses_number",
            ["customer_id", "number"],
            unique=True,
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.create_table(
        "digest_entries",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("approver_id", sa.String(length=16), nullable=False),
        sa.Column("template", sa.String(length=64), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["approver_id"], ["customers.id"], name=op.f("fk_digest_entries_approver_id_customers")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_digest_entries")),
    )
    with op.batch_alter_table("digest_entries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_digest_entries_approver_id"), ["approver_id"], unique=False)

    op.create_table(
        "freezes",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("cleared_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cleared_by", sa.String(length=200), nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_freezes_customer_id_customers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_freezes")),
    )
    with op.batch_alter_table("freezes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_freezes_customer_id"), ["customer_id"], unique=False)

    op.create_table(
        "policies",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_policies_customer_id_customers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("customer_id", "version", name=op.f("uq_policies_customer_id_version")),
    )
    op.create_table(
        "sign_in_codes",
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_sign_in_codes_customer_id_customers")),
        sa.PrimaryKeyConstraint("customer_id", name=op.f("pk_sign_in_codes")),
        sa.UniqueConstraint("id", name=op.f("uq_sign_in_codes_id")),
    )
    op.create_table(
        "appointments",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("role", sa.Enum("guardian", "supervisor", name="role", native_enum=False, length=16), nullable=False),
        sa.Column("ward_id", sa.String(length=16), nullable=False),
        sa.Column("approver_id", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=40), nullable=False),
        sa.Column(
            "standing",
            sa.Enum("proposed", "active", "ended", name="standing", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("backup", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("ring", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=True),
        sa.Column("above_minor", sa.BigInteger(), nullable=True),
        sa.Column(
            "tell",
            sa.Enum("sms", "email", "both", "digest", "nothing", name="tell", native_enum=False, length=16),
            nullable=False,
        ),
        sa.Column("consent_id", sa.String(length=16), nullable=True),
        sa.Column("proposed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["approver_id"], ["customers.id"], name=op.f("fk_appointments_approver_id_customers")),
        sa.ForeignKeyConstraint(["consent_id"], ["consents.id"], name=op.f("fk_appointments_consent_id_consents")),
        sa.ForeignKeyConstraint(["ward_id"], ["customers.id"], name=op.f("fk_appointments_ward_id_customers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_appointments")),
    )
    with op.batch_alter_table("appointments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_appointments_approver_id"), ["approver_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_appointments_ward_id"), ["ward_id"], unique=False)
        batch_op.create_index(
            "uq_appointments_standing",
            ["role", "ward_id", "approver_id"],
            unique=True,
            sqlite_where=sa.text("standing <> 'ended'"),
            postgresql_where=sa.text("standing <> 'ended'"),
        )

    op.create_table(
        "approval_requests",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("payment_id", sa.String(length=16), nullable=False),
        sa.Column("ward_id", sa.String(length=16), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "open", "approved", "refused", "expired", "cancelled", name="requeststate", native_enum=False, length=16
            ),
            nullable=False,
        ),
        sa.Column("why", sa.String(length=500), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name=op.f("fk_approval_requests_payment_id_payments")),
        sa.ForeignKeyConstraint(["ward_id"], ["customers.id"], name=op.f("fk_approval_requests_ward_id_customers")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval_requests")),
        sa.UniqueConstraint("payment_id", name=op.f("uq_approval_requests_payment_id")),
    )
    with op.batch_alter_table("approval_requests", schema=None) as batch_op:
        batch_op.create_index("ix_approval_requests_ward", ["ward_id", "state"], unique=False)

    op.create_table(
        "approval_answers",
        sa.Column("request_id", sa.String(length=16), nullable=False),
        sa.Column("approver_id", sa.String(length=16), nullable=False),
        sa.Column("role", sa.Enum("guardian", "supervisor", name="role", native_enum=False, length=16), nullable=False),
        sa.Column(
            "answer", sa.Enum("approve", "refuse", "fraud", name="answer", native_enum=False, length=16), nullable=False
        ),
        sa.Column("verified_by", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["approver_id"], ["customers.id"], name=op.f("fk_approval_answers_approver_id_customers")
        ),
        sa.ForeignKeyConstraint(
            ["request_id"], ["approval_requests.id"], name=op.f("fk_approval_answers_request_id_approval_requests")
        ),
        sa.PrimaryKeyConstraint("request_id", "approver_id", name=op.f("pk_approval_answers")),
    )
    op.create_table(
        "links",
        sa.Column("id", sa.String(length=16), nullable=False),
        sa.Column("approver_id", sa.String(length=16), nullable=False),
        sa.Column("contact_id", sa.String(length=16), nullable=False),
        sa.Column("request_id", sa.String(length=16), nullable=True),
        sa.Column("appointment_id", sa.String(length=16), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["appointment_id"], ["appointments.id"], name=op.f("fk_links_appointment_id_appointments")
        ),
        sa.ForeignKeyConstraint(["approver_id"], ["customers.id"], name=op.f("fk_links_approver_id_customers")),
        sa.ForeignKeyConstraint(["contact_id"], ["contacts.id"], name=op.f("fk_links_contact_id_contacts")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["approval_requests.id"], name=op.f("fk_links_request_id_approval_requests")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_links")),
    )
    with op.batch_alter_table("links", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_links_request_id"), ["request_id"], unique=False)

    op.create_table(
        "page_sessions",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("customer_id", sa.String(length=16), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("link_id", sa.String(length=16), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.id"], name=op.f("fk_page_sessions_customer_id_customers")),
        sa.ForeignKeyConstraint(["link_id"], ["links.id"], name=op.f("fk_page_sessions_link_id_links")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_page_sessions")),
    )
    with op.batch_alter_table("page_sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_page_sessions_device"), ["device"], unique=False)

    op.add_column("bills", sa.Column("kind", sa.String(length=40), server_default="", nullable=False))
    op.add_column("bills", sa.Column("ship_to", sa.String(length=200), nullable=True))

    op.add_column("caller_ids", sa.Column("added_at", sa.DateTime(timezone=True), nullable=True))

    op.add_column("contacts", sa.Column("added_at", sa.DateTime(timezone=True), nullable=True))

    op.add_column("customers", sa.Column("minor", sa.Boolean(), server_default=sa.false(), nullable=False))

    op.add_column("payments", sa.Column("ship_to", sa.String(length=200), nullable=True))


def downgrade() -> None:
    op.drop_column("payments", "ship_to")

    op.drop_column("customers", "minor")

    op.drop_column("contacts", "added_at")

    op.drop_column("caller_ids", "added_at")

    op.drop_column("bills", "ship_to")
    op.drop_column("bills", "kind")

    with op.batch_alter_table("page_sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_page_sessions_device"))

    op.drop_table("page_sessions")
    with op.batch_alter_table("links", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_links_request_id"))

    op.drop_table("links")
    op.drop_table("approval_answers")
    with op.batch_alter_table("approval_requests", schema=None) as batch_op:
        batch_op.drop_index("ix_approval_requests_ward")

    op.drop_table("approval_requests")
    with op.batch_alter_table("appointments", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_appointments_standing",
            sqlite_where=sa.text("standing <> 'ended'"),
            postgresql_where=sa.text("standing <> 'ended'"),
        )
        batch_op.drop_index(batch_op.f("ix_appointments_ward_id"))
        batch_op.drop_index(batch_op.f("ix_appointments_approver_id"))

    op.drop_table("appointments")
    op.drop_table("sign_in_codes")
    op.drop_table("policies")
    with op.batch_alter_table("freezes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_freezes_customer_id"))

    op.drop_table("freezes")
    with op.batch_alter_table("digest_entries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_digest_entries_approver_id"))

    op.drop_table("digest_entries")
    with op.batch_alter_table("addresses", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_addresses_number",
            sqlite_where=sa.text("removed_at IS NULL"),
            postgresql_where=sa.text("removed_at IS NULL"),
        )

    op.drop_table("addresses")
