"""What the tests of app charges share: real voices, an app that is bound, what somebody says to a charge."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import schemathesis
import soundfile
from api_support import Program, now
from flask.testing import FlaskClient
from numpy.typing import NDArray
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from ivr.api.openapi import description
from ivr.customers import apps
from ivr.customers.apps import App
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.models import Card, Customer, VoiceprintRow
from ivr.customers.voiceprints import record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.resources import shipped
from ivr.speech.audio import read_audio
from ivr.store.db import Database
from voiceprint import Encoder, Scorer, enrol

Pcm = NDArray[np.int16]
_takes = random.Random(7)


def recording(voice: str, name: str) -> Pcm:
    return read_audio(shipped(f"fixtures/audio/{voice}/{name}.wav"))


def says(voice: str, digits: str) -> Pcm:
    """Digits by a fixture's voice, a take of each at random."""
    return np.concatenate([recording(voice, f"digits/{digit}_{_takes.randint(1, 4)}") for digit in digits])


def wav(pcm: Pcm, rate: int = 8_000) -> bytes:
    made = io.BytesIO()
    soundfile.write(made, pcm, rate, format="WAV", subtype="PCM_16")
    return made.getvalue()


def enrolled(database: Database, keyring: Keyring, customer: Customer, encoder: Encoder, scorer: Scorer) -> None:
    """Alice's voice is the customer's, long ago."""
    heard = [encoder.embed(recording("alice", f"enrol_{i}")) for i in (1, 2, 3)]
    blob = enrol(heard, scorer.enrolment_limits).to_bytes()
    with database.transaction() as session:
        consent = record_consent(session, customer.id, text_version="voiceprint-1", channel="test", now=now())
        store_voiceprint(
            session, customer.id, blob, encoder.model_id, encoder.sample_rate, "telephone", consent.id, keyring, now()
        )
        session.execute(update(VoiceprintRow).values(provisional_until=now()))


@cache
def _described() -> Any:
    """What the API's description says of sending a recording."""
    described = schemathesis.openapi.from_dict(description("https://pay.example.com"))
    return described.find_operation_by_id("answer_app_charge")


@dataclass
class Pump:
    """An app of a merchant's on a customer's telephone."""

    client: FlaskClient
    shop: Program
    app_id: str
    reference: str
    binding_id: str = ""
    charges: list[dict[str, Any]] = field(default_factory=list)

    def charge(self, amount_minor: int = 1_250, **more: Any) -> dict[str, Any]:
        asked = {"app": self.app_id, "customer": self.reference, "amount_minor": amount_minor, "currency": "USD"}
        made = self.shop.made("/app-charges", asked | more)
        self.charges.append(made)
        return made

    def ask(self, amount_minor: int = 1_250, **more: Any) -> TestResponse:
        asked = {"app": self.app_id, "customer": self.reference, "amount_minor": amount_minor, "currency": "USD"}
        return self.shop.post("/app-charges", asked | more)

    def send(self, charge: dict[str, Any], body: bytes, media_type: str = "audio/wav") -> TestResponse:
        given = self.client.post(charge["upload_url"], data=body, content_type=media_type)
        _described().validate_response(given)
        return given

    def answer(self, charge: dict[str, Any], pcm: Pcm) -> dict[str, Any]:
        given = self.send(charge, wav(pcm))
        assert given.status_code == 200, given.text
        found: dict[str, Any] = given.get_json()
        return found

    def status(self, charge: dict[str, Any]) -> str:
        return str(self.shop.get(f"/app-charges/{charge['id']}").get_json()["status"])


def an_app(client: FlaskClient, database: Database, shop: Program, customer: Customer, name: str = "Pump") -> Pump:
    """An app, and the merchant's reference to the customer; not bound yet."""
    made = shop.made("/customers", {"reference": f"user of {name}", "number": customer.number})
    with database.transaction() as session:
        app = apps.add_app(session, session.get_one(Merchant, shop.merchant_id), name, who="test", now=now())
    return Pump(client, shop, app.id, made["id"])


def bind(database: Database, pump: Pump, **limits: Any) -> Pump:
    """The customer signs."""
    with database.transaction() as session:
        app, referred = session.get_one(App, pump.app_id), session.get_one(MerchantCustomer, pump.reference)
        binding = apps.request_binding(session, app, referred, now())
        card = session.scalar(select(Card.id).where(Card.customer_id == referred.customer_id))
        assert referred.customer_id
        assert card
        given = {"currency": "USD", "limit_minor": 5_000} | limits
        pump.binding_id = apps.bind(session, binding.id, referred.customer_id, card, **given, now=now()).id
    return pump
