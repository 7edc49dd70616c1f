"""The customers of the demo: as an operator would add them, with recordings of text-to-speech voices."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from sqlalchemy import update

from ivr.api import keys
from ivr.api.client import Client
from ivr.approval import addresses, appointments
from ivr.approval.policy import Role
from ivr.customers import merchants
from ivr.customers.bills import create_bill
from ivr.customers.cards import add_card
from ivr.customers.models import Bill, VoiceprintRow
from ivr.customers.pins import set_pin
from ivr.customers.register import add_customer
from ivr.customers.voiceprints import CONSENT_TEXT_VERSION, record_consent, store_voiceprint
from ivr.ops.demo.stage import Stage
from ivr.payments.banks import connect
from ivr.resources import shipped
from ivr.speech.audio import read_audio
from voiceprint import Encoder, Scorer, enrol

PIN = "482915"


@dataclass(frozen=True)
class Member:
    """A customer of the cast, as scenarios need to know her."""

    customer_id: str
    number: str


def pans() -> dict[str, str]:
    """The test card numbers of the fixtures by name."""
    with open(shipped("fixtures/cards.toml"), "rb") as file:
        cards: dict[str, str] = tomllib.load(file)["cards"]
    return cards


def member(
    stage: Stage,
    phone: str,
    cards: Sequence[str],
    now: datetime,
    *,
    voices: Sequence[Path] = (),
    pin: str | None = None,
    test: bool = True,
    locale: str = "en",
    emails: Sequence[str] = (),
    limit_minor: int | None = None,
) -> Member:
    """A customer with these card numbers, perhaps a voiceprint made of recordings, and a PIN; perhaps for tests."""
    bank = connect(stage.settings)
    tokens = {pan: bank.tokenise(pan, now.year + 3, 12) for pan in cards}
    voiceprint = _voiceprint(stage.settings.voice_model_dir, tuple(voices)) if voices else None
    with stage.database.transaction() as session:
        customer = add_customer(session, phones=[phone], locale=locale, test=test, sms=[phone], emails=emails, now=now)
        for pan, token in tokens.items():
            add_card(
                session,
                customer.id,
                pan,
                exp_year=now.year + 3,
                exp_month=12,
                token=token.token,
                authorised_by="the demo",
                limit_minor=limit_minor,
                keyring=stage.keyring,
                now=now,
            )
        if pin:
            set_pin(session, customer.id, pin, stage.keyring, now)
        if voiceprint:
            model_id, sample_rate, blob = voiceprint
            consent = record_consent(
                session, customer.id, text_version=CONSENT_TEXT_VERSION, channel="the demo", now=now
            )
            store_voiceprint(
                session, customer.id, blob, model_id, sample_rate, "telephone", consent.id, stage.keyring, now
            )
            settled = now - timedelta(days=4)
            session.execute(
                update(VoiceprintRow)
                .where(VoiceprintRow.customer_id == customer.id)
                .values(created_at=settled, provisional_until=settled + timedelta(hours=72))
            )
        return Member(customer.id, customer.number)


def bill(
    stage: Stage, customer_id: str, amount_minor: int, merchant: str, now: datetime, ship_to: str | None = None
) -> Bill:
    """Something that the customer owes."""
    with stage.database.transaction() as session:
        return create_bill(
            session, customer_id, merchant=merchant, amount_minor=amount_minor, currency="USD", ship_to=ship_to, now=now
        )


def shop(stage: Stage, name: str, now: datetime) -> Client:
    """A merchant's program, with a key of its own."""
    with stage.database.transaction() as session:
        merchant = merchants.add_merchant(session, name, who="the demo", now=now)
        _, key = keys.issue(session, merchant, "the demo", keys.SCOPES, who="the demo", now=now)
    return Client(stage.url, key)


def looks_after(stage: Stage, role: Role, approver: Member, ward: Member, now: datetime) -> None:
    """Named, and accepted."""
    with stage.database.transaction() as session:
        appointment = appointments.propose(
            session,
            role,
            ward_id=ward.customer_id,
            approver_id=approver.customer_id,
            label="Lea",
            who="the demo",
            now=now,
        )
        appointments.accept(session, appointment.id, approver.customer_id, channel="the demo", now=now)


def lives_at(stage: Stage, ward: Member, now: datetime, **book: str) -> None:
    """Her address book: names and addresses."""
    with stage.database.transaction() as session:
        for label, text in book.items():
            addresses.add(session, ward.customer_id, label, text, who="the demo", now=now)


@cache
def _models(folder: Path) -> tuple[Encoder, Scorer]:
    return Encoder.load(folder), Scorer.load(folder)


@cache
def _voiceprint(folder: Path, recordings: tuple[Path, ...]) -> tuple[str, int, bytes]:
    encoder, scorer = _models(folder)
    heard = [encoder.embed(read_audio(path)) for path in recordings]
    return encoder.model_id, encoder.sample_rate, enrol(heard, scorer.enrolment_limits).to_bytes()
