"""Merchants' apps that may charge a customer by her voice: the binding that she signed, and each charge.

A binding is asked for by the merchant and made by the customer alone, on a page to which a one-time link leads her.
To the merchant an unknown person and one who has not answered are the same.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sqlalchemy import BigInteger, Enum, ForeignKey, Index, String, UniqueConstraint, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from ivr import jobs, onetime
from ivr.customers import audit, bills, merchants
from ivr.customers.cards import authorised_cards
from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import lock_customer
from ivr.customers.merchants import Merchant, MerchantCustomer, NameTaken, spoken_text
from ivr.customers.models import Card, new_id
from ivr.customers.money import check_currency
from ivr.customers.notices import notify
from ivr.customers.text import LONGEST_SPOKEN
from ivr.customers.voiceprints import voiceprint_of
from ivr.keys import Keyring
from ivr.payments.models import Payment, Refund, RefundState
from ivr.payments.states import DEBITED, FAILED
from ivr.speech.numbers import varied
from ivr.store.db import Base

PAGE, BIND_JOB = "app", "app.bind"
LINK_LIFE = timedelta(minutes=30)
CHARGE_LIFE = timedelta(minutes=2)
MOST_TRIES = 3  # of a charge
DAY = timedelta(hours=24)
#: Eight digits hold 2.2 to 3.1 s of speech in 36 joined fixture clips of three voices, and all 36 are judged rightly;
#: four hold 1.0 to 1.7 s, and none is judged: the voice's calibration asks for 2 s.
CHALLENGE_DIGITS = 8


class App(Base):
    """A program of a merchant's that customers may let charge them. Its name is spoken, so an operator gives it."""

    __tablename__ = "apps"
    __table_args__ = (UniqueConstraint("merchant_id", "name"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    merchant_id: Mapped[str] = mapped_column(ForeignKey("merchants.id"))
    name: Mapped[str] = mapped_column(String(LONGEST_SPOKEN))
    prompt_file: Mapped[str | None] = mapped_column(String(64))  # in the data folder; what the app plays first
    created_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class AppBinding(Base):
    """That an app may charge a customer: asked for, and bound from when she signs until somebody unbinds it."""

    __tablename__ = "app_bindings"

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id"), index=True)
    merchant_customer_id: Mapped[str] = mapped_column(ForeignKey("merchant_customers.id"), index=True)
    customer_id: Mapped[str | None] = mapped_column(ForeignKey("customers.id"), index=True)
    card_id: Mapped[str | None] = mapped_column(ForeignKey("cards.id"))
    currency: Mapped[str | None] = mapped_column(String(3))
    limit_minor: Mapped[int | None] = mapped_column(BigInteger)  # of one charge
    day_limit_minor: Mapped[int | None] = mapped_column(BigInteger)  # of all in 24 hours
    yes_limit_minor: Mapped[int] = mapped_column(BigInteger, default=0)  # up to it a yes is enough, whoever says it
    tries: Mapped[int] = mapped_column(default=0)  # at the link's PIN
    requested_at: Mapped[datetime]
    expires_at: Mapped[datetime]  # of the link
    bound_at: Mapped[datetime | None]
    unbound_at: Mapped[datetime | None]

    @property
    def is_bound(self) -> bool:
        return self.bound_at is not None and self.unbound_at is None


class ChargeStatus(StrEnum):
    ASKING = "asking"
    CONFIRMED = "confirmed"
    DECLINED = "declined"
    REFUSED = "refused"
    EXPIRED = "expired"


class AppCharge(Base):
    """One charge by an app, and what the customer said to it."""

    __tablename__ = "app_charges"
    __table_args__ = (Index("ix_app_charges_binding_id_created_at", "binding_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(16), primary_key=True, default=new_id)
    app_id: Mapped[str] = mapped_column(ForeignKey("apps.id"), index=True)
    binding_id: Mapped[str] = mapped_column(ForeignKey("app_bindings.id"))
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    description: Mapped[str] = mapped_column(String(LONGEST_SPOKEN))
    by_voice: Mapped[bool]  # digits are said, and the voice is judged; else a yes is enough
    status: Mapped[ChargeStatus] = mapped_column(
        Enum(ChargeStatus, native_enum=False, length=16, values_callable=lambda kinds: [kind.value for kind in kinds])
    )
    tries: Mapped[int] = mapped_column(default=0)
    payment_id: Mapped[str | None] = mapped_column(ForeignKey("payments.id"))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]

    def status_at(self, now: datetime) -> ChargeStatus:
        late = self.status is ChargeStatus.ASKING and now > self.expires_at
        return ChargeStatus.EXPIRED if late else self.status


class AppUnknown(InvalidInput):
    """There is no such app."""


class NotBound(InvalidInput):
    """No binding of this app and customer is in force."""


class AboveLimit(InvalidInput):
    """More than the customer lets the app take."""


class LinkSpent(InvalidInput):
    """The request to bind was answered, or is too old."""


class NoVoice(InvalidInput):
    """There is no voiceprint by which the customer could be known."""


# --- apps


def add_app(session: Session, merchant: Merchant, name: str, *, who: str, now: datetime) -> App:
    """An app whose name was approved by whoever adds it. Raises InvalidInput."""
    name = spoken_text(name, "an app's name")
    if session.scalar(select(App.id).where(App.merchant_id == merchant.id, App.name == name)):
        raise NameTaken(f"{merchant.name} has an app {name!r} already")
    app = App(id=new_id(), merchant_id=merchant.id, name=name, created_at=now)
    session.add(app)
    session.flush()
    audit.record(session, who, "app.added", app.id, now, merchant=merchant.id)
    return app


def require_app(session: Session, app_id: str) -> App:
    """The app, unless closed. Raises AppUnknown."""
    found = session.get(App, app_id)
    if found is None or found.closed_at is not None:
        raise AppUnknown(f"there is no app {app_id!r}; `ivr app list` shows those there are")
    return found


# --- bindings


def request_binding(session: Session, app: App, referred: MerchantCustomer, now: datetime) -> AppBinding:
    """Have the customer, if there is one, asked whether this app may charge her. The same work for anybody."""
    binding = AppBinding(
        id=new_id(),
        app_id=app.id,
        merchant_customer_id=referred.id,
        yes_limit_minor=0,
        tries=0,
        requested_at=now,
        expires_at=now + LINK_LIFE,
    )
    session.add(binding)
    session.flush()
    jobs.put(session, BIND_JOB, {"binding_id": binding.id}, f"{BIND_JOB}:{binding.id}", now)
    return binding


def bind(
    session: Session,
    binding_id: str,
    customer_id: str,
    card_id: str,
    *,
    currency: str,
    limit_minor: int,
    day_limit_minor: int | None = None,
    yes_limit_minor: int = 0,
    now: datetime,
) -> AppBinding:
    """The customer signed: the app may charge this card within these limits. Its earlier binding ends.

    Whoever calls this has checked her PIN. Raises LinkSpent, NoVoice, InvalidInput.
    """
    lock_customer(session, customer_id)
    binding = session.get_one(AppBinding, binding_id, with_for_update=True)
    referred = session.get_one(MerchantCustomer, binding.merchant_customer_id)
    if binding.bound_at or binding.unbound_at or now > binding.expires_at or referred.customer_id != customer_id:
        raise LinkSpent("this request was answered, or is too old: have the app send a new one")
    require_app(session, binding.app_id)
    check_currency(currency)
    bills.check_amount(limit_minor)
    if day_limit_minor is not None and day_limit_minor < limit_minor:
        raise InvalidInput("the limit of a day is below that of one charge")
    if not 0 <= yes_limit_minor <= limit_minor:
        raise InvalidInput("a yes is enough up to the limit of one charge at most")
    if card_id not in {card.id for card in authorised_cards(session, customer_id, now.date())}:
        raise InvalidInput("there is no such authorised card of this customer")
    if voiceprint_of(session, customer_id) is None:
        raise NoVoice("enrol your voice first, by telephone")
    earlier = select(AppBinding).where(
        AppBinding.app_id == binding.app_id, AppBinding.customer_id == customer_id, AppBinding.unbound_at.is_(None)
    )
    for one in session.scalars(earlier).all():
        unbind(session, one, who=f"customer {customer_id}", now=now)
    binding.customer_id, binding.card_id, binding.currency = customer_id, card_id, currency
    binding.limit_minor, binding.day_limit_minor = limit_minor, day_limit_minor
    binding.yes_limit_minor, binding.bound_at = yes_limit_minor, now
    session.flush()
    audit.record(session, f"customer {customer_id}", "app.bound", binding.id, now, app=binding.app_id)
    app = session.get_one(App, binding.app_id)
    told = {
        "app": app.name,
        "merchant": session.get_one(Merchant, app.merchant_id).name,
        "last4": session.get_one(Card, card_id).last4,
        "amount_minor": limit_minor,
        "currency": currency,
    }
    notify(session, customer_id, "app.bound", told, now)
    return binding


def unbind(session: Session, binding: AppBinding, *, who: str, now: datetime) -> None:
    """The app may charge no more; a request that waits is withdrawn."""
    if binding.unbound_at is None:
        binding.unbound_at = now
        session.flush()
        audit.record(session, who, "app.unbound", binding.id, now)


def bindings_of(session: Session, customer_id: str) -> Sequence[tuple[AppBinding, App, Merchant, Card]]:
    """The apps that may charge a customer, or did, each with the card."""
    query = (
        select(AppBinding, App, Merchant, Card)
        .join(App, App.id == AppBinding.app_id)
        .join(Merchant, Merchant.id == App.merchant_id)
        .join(Card, Card.id == AppBinding.card_id)
        .where(AppBinding.customer_id == customer_id)
        .order_by(AppBinding.unbound_at.is_not(None), AppBinding.bound_at.desc(), AppBinding.id)
    )
    return [(binding, app, merchant, card) for binding, app, merchant, card in session.execute(query)]


@dataclass(frozen=True)
class Charged:
    """What an app took of a customer by one charge, and what of it was given back, in minor units."""

    at: datetime
    description: str
    debited_minor: int
    refunded_minor: int


def charged(session: Session, customer_id: str) -> Mapping[str, Sequence[Charged]]:
    """What each binding of a customer was used for, the newest first; only what was debited."""
    refunded = (
        select(Refund.payment_id, func.sum(Refund.amount_minor).label("minor"))
        .where(Refund.state == RefundState.DONE)
        .group_by(Refund.payment_id)
        .subquery()
    )
    query = (
        select(AppCharge, Payment, func.coalesce(refunded.c.minor, 0))
        .join(Payment, Payment.id == AppCharge.payment_id)
        .outerjoin(refunded, refunded.c.payment_id == Payment.id)
        .where(Payment.customer_id == customer_id, Payment.state.in_(DEBITED))
        .order_by(AppCharge.created_at.desc(), AppCharge.id)
    )
    found: dict[str, list[Charged]] = {}
    for charge, payment, minor in session.execute(query):
        one = Charged(charge.created_at, charge.description, payment.debit_minor, int(minor))
        found.setdefault(charge.binding_id, []).append(one)
    return found


def active_binding(session: Session, app_id: str, merchant_customer_id: str) -> AppBinding:
    """The binding in force. Raises NotBound."""
    query = select(AppBinding).where(
        AppBinding.app_id == app_id,
        AppBinding.merchant_customer_id == merchant_customer_id,
        AppBinding.bound_at.is_not(None),
        AppBinding.unbound_at.is_(None),
    )
    found = session.scalar(query.order_by(AppBinding.bound_at.desc()).limit(1))
    if found is None:
        raise NotBound("this customer has not bound this app: POST /v1/apps/{app_id}/bindings asks her")
    return found


# --- charges


def open_charge(
    session: Session,
    app: App,
    binding: AppBinding,
    *,
    amount_minor: int,
    currency: str,
    description: str,
    now: datetime,
) -> AppCharge:
    """A charge that the customer is asked about now. Raises AboveLimit, InvalidInput."""
    bills.check_amount(amount_minor)
    merchants.check_description(session, app.merchant_id, description)
    check_limits(session, binding, amount_minor, currency, now)
    charge = AppCharge(
        id=new_id(),
        app_id=app.id,
        binding_id=binding.id,
        amount_minor=amount_minor,
        currency=currency,
        description=description,
        by_voice=amount_minor > binding.yes_limit_minor,
        status=ChargeStatus.ASKING,
        tries=0,
        created_at=now,
        expires_at=now + CHARGE_LIFE,
    )
    session.add(charge)
    session.flush()
    return charge


def check_limits(session: Session, binding: AppBinding, amount_minor: int, currency: str, now: datetime) -> None:
    """Raises AboveLimit unless the customer lets the app take this, with all that it took in the last 24 hours."""
    assert binding.limit_minor is not None
    if currency != binding.currency:
        raise AboveLimit(f"this customer lets the app charge in {binding.currency} only")
    if amount_minor > binding.limit_minor:
        raise AboveLimit("this is more than the customer lets the app take at once")
    if binding.day_limit_minor is None:
        return
    taken = (
        select(func.coalesce(func.sum(AppCharge.amount_minor), 0))
        .join(Payment, Payment.id == AppCharge.payment_id)
        .where(AppCharge.binding_id == binding.id, Payment.created_at > now - DAY, Payment.state.not_in(FAILED))
    )
    if amount_minor + int(session.scalar(taken) or 0) > binding.day_limit_minor:
        raise AboveLimit("this is more than the customer lets the app take in a day")


def challenge(keyring: Keyring, charge: AppCharge) -> str:
    """The digits to be said now: others at each try, made from a key and kept nowhere; "" where a yes is enough."""
    if not charge.by_voice:
        return ""
    made = hmac.digest(keyring.active("session")[1], f"charge\x00{charge.id}\x00{charge.tries}".encode(), "sha512")
    return varied((str(byte % 10) for byte in made if byte < 250), CHALLENGE_DIGITS)


def charge_token(keyring: Keyring, charge_id: str) -> str:
    """With this the app sends what was said to one charge, and can do nothing else."""
    return onetime.token(keyring, "app-charge", charge_id)


def is_charge_token(keyring: Keyring, charge_id: str, token: str) -> bool:
    return onetime.read(keyring, "app-charge", token) == charge_id
