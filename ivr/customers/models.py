"""The tables of the people who pay, what they owe and what they have allowed.

No card number, PIN, enrolment code or voiceprint is in them in readable form: cards and codes are keyed
hashes, PINs argon2id, voiceprints sealed; the keys lie outside the database (``ivr.keys``).
"""

from __future__ import annotations

import secrets
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Enum, ForeignKey, Index, LargeBinary, String, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ivr.log import scrub
from ivr.store.db import Base


def new_id() -> str:
    """A row id: 64 random bits in hex, so that ids tell neither count nor order; none that logs would mask."""
    while scrub(made := secrets.token_hex(8)) != made:  # twelve digits in a row, as a card number has
        pass
    return made


def _values(enum: type[StrEnum]) -> list[str]:
    return [member.value for member in enum]


class BillStatus(StrEnum):
    OPEN = "open"
    PAID = "paid"
    CANCELLED = "cancelled"


class ContactKind(StrEnum):
    SMS = "sms"
    EMAIL = "email"


def _enum(enum: type[StrEnum]) -> Enum:
    return Enum(enum, native_enum=False, length=16, values_callable=_values)


class Customer(Base):
    """Who pays. ``number`` is seven digits that a caller can key, the last a Luhn check digit."""

    __tablename__ = "customers"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    number: Mapped[str] = mapped_column(String(7), unique=True)
    locale: Mapped[str] = mapped_column(String(8))
    test: Mapped[bool] = mapped_column(default=False)
    minor: Mapped[bool] = mapped_column(default=False, server_default=false())  # pays only under a guardian's eyes
    created_at: Mapped[datetime]

    caller_ids: Mapped[list[CallerId]] = relationship(order_by="CallerId.e164")
    contacts: Mapped[list[Contact]] = relationship(order_by="Contact.address")


class CallerId(Base):
    """A telephone number that selects a customer; a household may share one."""

    __tablename__ = "caller_ids"

    e164: Mapped[str] = mapped_column(String(16), primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True, index=True)
    added_at: Mapped[datetime | None]  # null: before this was kept


class Contact(Base):
    """Where a customer is told of what happened to her account."""

    __tablename__ = "contacts"
    __table_args__ = (UniqueConstraint("customer_id", "kind", "address"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    kind: Mapped[ContactKind] = mapped_column(_enum(ContactKind))
    address: Mapped[str] = mapped_column(String(254))
    added_at: Mapped[datetime | None]  # null: before this was kept


class Card(Base):
    """A card that its holder has authorised to be debited, with that authorisation. Never its number."""

    __tablename__ = "cards"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    bank_token: Mapped[str] = mapped_column(String(128))
    brand: Mapped[str] = mapped_column(String(32))
    exp_year: Mapped[int]
    exp_month: Mapped[int]
    last4: Mapped[str] = mapped_column(String(4))
    pan_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    pan_key_id: Mapped[str] = mapped_column(String(32))
    authorised_by: Mapped[str] = mapped_column(String(200))
    authorised_at: Mapped[datetime]
    text_version: Mapped[str] = mapped_column(String(32))
    limit_minor: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[datetime | None]


class Bill(Base):
    """What is owed, in minor units of its currency."""

    __tablename__ = "bills"
    __table_args__ = (Index("ix_bills_customer_id_status", "customer_id", "status"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"))
    merchant: Mapped[str] = mapped_column(String(200))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    description: Mapped[str] = mapped_column(String(500), default="")
    kind: Mapped[str] = mapped_column(String(40), default="", server_default="")  # of the merchant's trade
    ship_to: Mapped[str | None] = mapped_column(String(200))  # the address that came with it; null: nothing is shipped
    status: Mapped[BillStatus] = mapped_column(_enum(BillStatus), default=BillStatus.OPEN)
    hold_only: Mapped[bool] = mapped_column(default=False, server_default=false())  # held when paid, debited later
    one_payment: Mapped[bool] = mapped_column(default=False, server_default=false())  # cancelled when that one fails
    created_at: Mapped[datetime]
    due_at: Mapped[datetime | None]


class Pin(Base):
    """argon2id over an HMAC of the PIN: the hash alone, stolen, cannot be searched."""

    __tablename__ = "pins"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    hash: Mapped[str] = mapped_column(String(200))
    key_id: Mapped[str] = mapped_column(String(32))
    changed_at: Mapped[datetime]
    provisional_until: Mapped[datetime | None]
    call_sid: Mapped[str | None] = mapped_column(String(64))  # of the call that set it


class Consent(Base):
    """That somebody agreed: to which text, when, over which channel. Kept when what it allowed is deleted."""

    __tablename__ = "consents"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    text_version: Mapped[str] = mapped_column(String(32))
    given_at: Mapped[datetime]
    channel: Mapped[str] = mapped_column(String(200))
    withdrawn_at: Mapped[datetime | None]


class VoiceprintRow(Base):
    """A customer's only voiceprint, sealed, with the model, sample rate and consent it was made under."""

    __tablename__ = "voiceprints"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), unique=True)
    consent_id: Mapped[str] = mapped_column(ForeignKey("consents.id"))
    model_id: Mapped[str] = mapped_column(String(128))
    sample_rate: Mapped[int]
    channel: Mapped[str] = mapped_column(String(32))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    provisional_until: Mapped[datetime]
    authenticated_calls: Mapped[int] = mapped_column(default=1)
    last_call_sid: Mapped[str | None] = mapped_column(String(64))
    last_used_at: Mapped[datetime | None]


class VoiceSecret(Base):
    """What a customer's fingerprints were made with, sealed: without it none of them can be compared."""

    __tablename__ = "voice_secrets"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    enrolling_at: Mapped[datetime | None]  # when an enrolment began to use it


class UtterancePrint(Base):
    """The sealed fingerprint of something a customer said, so that a recording of it is known again."""

    __tablename__ = "utterance_prints"

    call_sid: Mapped[str] = mapped_column(String(64), primary_key=True)  # or where else it was said
    step: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True, index=True)
    consent_id: Mapped[str] = mapped_column(ForeignKey("consents.id"))
    scheme: Mapped[str] = mapped_column(String(32))
    channel: Mapped[str] = mapped_column(String(32))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    at: Mapped[datetime] = mapped_column(index=True)


class WatchlistEntry(Base):
    """The sealed voiceprint of a known impostor, and what allows it to be kept."""

    __tablename__ = "watchlist"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    label: Mapped[str] = mapped_column(String(100))
    legal_basis: Mapped[str] = mapped_column(String(300))
    model_id: Mapped[str] = mapped_column(String(128))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]


class EnrolmentCode(Base):
    """A single-use code, as a keyed hash. A customer has one at most."""

    __tablename__ = "enrolment_codes"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), unique=True)
    code_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    key_id: Mapped[str] = mapped_column(String(32))
    expires_at: Mapped[datetime]
    tries: Mapped[int] = mapped_column(default=0)
    used_at: Mapped[datetime | None]
    used_by: Mapped[str | None] = mapped_column(String(64))  # the call's SID


class FailureBudget(Base):
    """How often authentication failed for a customer: in calls with full attestation, and in those without."""

    __tablename__ = "failure_budgets"

    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True)
    attested: Mapped[bool] = mapped_column(primary_key=True)
    in_a_row: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    locked_until: Mapped[datetime | None]


class Failure(Base):
    """One failed step of one call, so that a repeated request counts once."""

    __tablename__ = "failures"

    call_sid: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), primary_key=True, index=True)
    at: Mapped[datetime]


class Notice(Base):
    """A message to one contact that waits to be sent. ``values`` fill the template and hold no secret."""

    __tablename__ = "notices"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    customer_id: Mapped[str] = mapped_column(ForeignKey("customers.id"), index=True)
    contact_id: Mapped[str] = mapped_column(ForeignKey("contacts.id"))
    template: Mapped[str] = mapped_column(String(64))
    values: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime]
    sent_at: Mapped[datetime | None] = mapped_column(index=True)


class Audit(Base):
    """Who did what to whom, and when; rows are only added."""

    __tablename__ = "audit"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    at: Mapped[datetime] = mapped_column(index=True)
    who: Mapped[str] = mapped_column(String(200))
    what: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(64), index=True)
    details: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
