"""Tables of the console: who may sign in, and who is signed in."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, Enum, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from ivr.customers.models import new_id
from ivr.store.db import Base


class Role(StrEnum):
    """What an operator may do; each may do what those before may."""

    VIEWER = "viewer"  # look
    OPERATOR = "operator"  # change what customers need: unlock them
    ADMIN = "admin"  # see and end what other operators may do

    def may(self, needed: Role) -> bool:
        order = list(Role)
        return order.index(self) >= order.index(needed)


class Operator(Base):
    """Somebody who may sign in to the console."""

    __tablename__ = "operators"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    name: Mapped[str] = mapped_column(String(32), unique=True)
    role: Mapped[Role] = mapped_column(
        Enum(Role, native_enum=False, length=16, values_callable=lambda roles: [r.value for r in roles])
    )
    password_hash: Mapped[str] = mapped_column(String(200))  # argon2id
    totp_sealed: Mapped[bytes] = mapped_column(LargeBinary)  # under a key outside the database
    totp_step: Mapped[int] = mapped_column(BigInteger, default=0)  # of the last code accepted: none is, twice
    failures: Mapped[int] = mapped_column(default=0)  # since she last signed in
    wait_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    signed_in_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class OperatorSession(Base):
    """An operator who is signed in; ``id`` is a hash of what her browser holds."""

    __tablename__ = "operator_sessions"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    operator_id: Mapped[str] = mapped_column(ForeignKey("operators.id"), index=True)
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
