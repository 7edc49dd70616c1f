"""Tables of who must agree: appointments, policies, addresses, requests and answers, links and sessions, freezes."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, String, UniqueConstraint, event, false, text
from sqlalchemy.orm import Mapped, mapped_column

from ivr.approval.policy import Role
from ivr.customers.models import new_id
from ivr.payments.models import refuse_change
from ivr.store.db import Base


def _enum(enum: type[StrEnum]) -> Enum:
    return Enum(enum, native_enum=False, length=16, values_callable=lambda members: [m.value for m in members])


class Standing(StrEnum):
    """Where an appointment is."""

    PROPOSED = "proposed"  # the approver has not accepted it yet
    ACTIVE = "active"
    ENDED = "ended"


class Tell(StrEnum):
    """How an approver hears of payments that need no answer."""

    SMS = "sms"
    EMAIL = "email"
    BOTH = "both"
    DIGEST = "digest"  # by e-mail, once a day
    NOTHING = "nothing"


class Appointment(Base):
    """That a customer, the approver, must agree to payments of another, the ward."""

    __tablename__ = "appointments"
    __table_args__ = (
        Index(
            "uq_appointments_standing",
            "role",
            "ward_id",
            "approver_id",
            unique=True,
            sqlite_where=text("standing <> 'ended'"),
            postgresql_where=text("standing <> 'ended'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    role: Mapped[Role] = mapped_column(_enum(Role))
    ward_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    approver_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    label: Mapped[str] = mapped_column(String(40))  # what the approver calls the ward
    standing: Mapped[Standing] = mapped_column(_enum(Standing))
    backup: Mapped[bool] = mapped_column(default=False, server_default=false())  # asked when the others do not answer
    currency: Mapped[str | None] = mapped_column(String(3))  # of the limit
    above_minor: Mapped[int | None] = mapped_column(BigInteger)  # a supervisor of larger payments only
    ring: Mapped[bool] = mapped_column(default=False, server_default=false())  # is also rung up when asked
    tell: Mapped[Tell] = mapped_column(_enum(Tell))
    consent_id: Mapped[str | None] = mapped_column(ForeignKey("consents.id"))  # the approver's
    proposed_at: Mapped[datetime]
    accepted_at: Mapped[datetime | None]
    ends_at: Mapped[datetime | None]


class Address(Base):
    """One of the addresses that a ward's goods may go to. ``number`` is how it is chosen on the telephone."""

    __tablename__ = "addresses"
    __table_args__ = (
        Index(
            "uq_addresses_number",
            "customer_id",
            "number",
            unique=True,
            sqlite_where=text("removed_at IS NULL"),
            postgresql_where=text("removed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    number: Mapped[int]
    label: Mapped[str] = mapped_column(String(40))  # spoken
    text: Mapped[str] = mapped_column(String(200))
    added_at: Mapped[datetime]
    removed_at: Mapped[datetime | None]


class PolicyVersion(Base):
    """A policy as it was from a moment on; the newest version counts. Append-only."""

    __tablename__ = "policies"
    __table_args__ = (UniqueConstraint("customer_id", "version"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    version: Mapped[int]
    document: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # null: the shipped one again
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(200))


class RequestState(StrEnum):
    OPEN = "open"
    APPROVED = "approved"
    REFUSED = "refused"
    EXPIRED = "expired"
    CANCELLED = "cancelled"  # the payment ended otherwise


class ApprovalRequest(Base):
    """A payment that waits for others to agree."""

    __tablename__ = "approval_requests"
    __table_args__ = (Index("ix_approval_requests_ward", "ward_id", "state"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    payment_id: Mapped[str] = mapped_column(ForeignKey("payments.id"), unique=True)
    ward_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    state: Mapped[RequestState] = mapped_column(_enum(RequestState))
    why: Mapped[str] = mapped_column(String(500))  # which rules asked for it, or how it ended
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    decided_at: Mapped[datetime | None]


class Answer(StrEnum):
    APPROVE = "approve"
    REFUSE = "refuse"
    FRAUD = "fraud"  # refuse, and stop all payments of this ward


class ApprovalAnswer(Base):
    """What one approver said to one request. Append-only."""

    __tablename__ = "approval_answers"

    request_id: Mapped[str] = mapped_column(ForeignKey("approval_requests.id"), primary_key=True)
    approver_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    role: Mapped[Role] = mapped_column(_enum(Role))
    answer: Mapped[Answer] = mapped_column(_enum(Answer))
    verified_by: Mapped[str] = mapped_column(String(64))  # with what the approver proved who she is, and where
    at: Mapped[datetime]


class Link(Base):
    """A one-time link that was sent to one contact. Its token is made from ``id`` and a key outside the database."""

    __tablename__ = "links"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    approver_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    contact_id: Mapped[str] = mapped_column(ForeignKey("contacts.id"))
    request_id: Mapped[str | None] = mapped_column(ForeignKey("approval_requests.id"), index=True)
    appointment_id: Mapped[str | None] = mapped_column(ForeignKey("appointments.id"))
    expires_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)
    used_at: Mapped[datetime | None]


class SignInCode(Base):
    """The one code with which a customer may sign in to the pages now; made from ``id`` like a link's token."""

    __tablename__ = "sign_in_codes"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    id: Mapped[str] = mapped_column(String(16), unique=True)
    expires_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)


class PageSession(Base):
    """Somebody signed in to the pages; ``id`` is a hash of what her browser holds."""

    __tablename__ = "page_sessions"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    device: Mapped[str] = mapped_column(String(64), index=True)  # the browser, by a hash of its own
    link_id: Mapped[str | None] = mapped_column(ForeignKey("links.id"))  # signed in by it: sees what it is about only
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class Freeze(Base):
    """A customer's payments are stopped, until somebody clears it."""

    __tablename__ = "freezes"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(String(200))
    cleared_at: Mapped[datetime | None]
    cleared_by: Mapped[str | None] = mapped_column(String(200))


class DigestEntry(Base):
    """Something an approver hears of with the next digest: like a notice, not yet sent."""

    __tablename__ = "digest_entries"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    approver_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    template: Mapped[str] = mapped_column(String(64))
    values: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime]
    told_at: Mapped[datetime | None]


for _table in (PolicyVersion, ApprovalAnswer):
    event.listen(_table, "before_update", refuse_change)
    event.listen(_table, "before_delete", refuse_change)
