"""Charges by an app, with real voices, the real models, both databases and a real Redis."""

from __future__ import annotations

import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import redis
import soundfile
from api_support import Program, now, program
from app_support import Pump, an_app, bind, enrolled, recording, says, wav
from flask import Flask, json
from flask.testing import FlaskClient
from people_support import add_person, appoint, sent
from sqlalchemy import func, select, update
from structlog.testing import capture_logs

from ivr.api import voice
from ivr.api.voice import ANSWERS
from ivr.app import create_app
from ivr.approval import freezes
from ivr.approval.policy import Role
from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.models import Turn
from ivr.call.session import CallStore
from ivr.clock import utc_now
from ivr.customers import apps, budget, utterances
from ivr.customers.apps import AppCharge
from ivr.customers.merchants import Merchant, MerchantBill
from ivr.customers.models import Bill, Card, Customer, Failure, UtterancePrint, VoiceprintRow
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.resources import shipped
from ivr.services import Services
from ivr.settings import Settings
from ivr.speech.audio import read_audio
from ivr.speech.decode import LONGEST_BODY_BYTES
from ivr.speech.recogniser import DigitModel
from ivr.store.db import Database
from voiceprint import Encoder, Scorer
from voiceprint.replay import Sound


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(shipped("models/voice"))


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer.load(shipped("models/voice"))


@pytest.fixture(scope="module")
def digits() -> DigitModel:
    return DigitModel(shipped("models/digits"))


@pytest.fixture
def service(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    keyring: Keyring,
    encoder: Encoder,
    scorer: Scorer,
    digits: DigitModel,
) -> Flask:
    """The whole application."""
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, encoder, scorer, utc_now)
    engine = Engine(calls, database, judge, utc_now)
    return create_app(settings, Services(settings, database, calls, engine, judge, digits))


@pytest.fixture
def client(service: Flask) -> FlaskClient:
    return service.test_client()


@pytest.fixture
def shop(client: FlaskClient, database: Database) -> Program:
    return program(client, database)


@pytest.fixture
def alice(database: Database, keyring: Keyring, encoder: Encoder, scorer: Scorer) -> Customer:
    with database.transaction() as session:
        customer = add_person(session, keyring)
    enrolled(database, keyring, customer, encoder, scorer)
    return customer


@pytest.fixture
def pump(client: FlaskClient, database: Database, shop: Program, alice: Customer) -> Pump:
    return bind(database, an_app(client, database, shop, alice))


def payments(database: Database) -> list[Payment]:
    with database.transaction() as session:
        return list(session.scalars(select(Payment)))


def failures(database: Database) -> int:
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(Failure)) or 0


# --- what is said


def test_the_owners_voice_that_says_the_digits_pays(pump: Pump, database: Database, alice: Customer) -> None:
    charge = pump.charge()
    assert charge["status"] == "asking"
    assert len(charge["challenge"]) == apps.CHALLENGE_DIGITS
    spelled = " ".join(charge["challenge"][:4]) + ", " + " ".join(charge["challenge"][4:])
    assert charge["prompt"]["text"] == (f"City Water, Pump. To pay 12 US dollars 50, say: {spelled}. To stop, say no.")
    answer = pump.answer(charge, says("alice", charge["challenge"]))
    assert answer == {"status": "confirmed", "say": "Thank you. 12 US dollars 50 is being paid to City Water."}
    (payment,) = payments(database)
    assert (payment.amount_minor, payment.customer_id) == (1_250, alice.id)
    assert payment.evidence["factors"] == ["voice", "challenge", "spoken yes"]
    assert payment.evidence["attested"] is False
    shown = pump.shop.get(f"/app-charges/{charge['id']}").get_json()
    assert (shown["status"], shown["payment"], shown["upload_url"]) == ("confirmed", payment.id, None)
    paid = pump.shop.get(f"/payments/{payment.id}").get_json()
    assert paid["amount_minor"] == 1_250
    assert pump.shop.get(f"/bills/{paid['bill']}").get_json()["customer"] == pump.reference
    assert failures(database) == 0


def test_another_voice_is_refused_and_nothing_tells_why(pump: Pump, database: Database) -> None:
    charge, told = pump.charge(), []
    for _ in range(apps.MOST_TRIES):
        now_asked = pump.shop.get(f"/app-charges/{charge['id']}").get_json()
        answer = pump.answer(charge, says("bob", now_asked["challenge"]))
        told.append(answer["status"])
    assert told == ["again", "again", "refused"]
    assert answer["say"] == "That did not work. Nothing is paid."
    assert (pump.status(charge), payments(database), failures(database)) == ("refused", [], apps.MOST_TRIES)


def test_wrong_digits_by_the_owner_fail_alike(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    wrong = "".join(str((int(digit) + 5) % 10) for digit in charge["challenge"])
    answer = pump.answer(charge, says("alice", wrong))
    assert answer["status"] == "again"
    other = pump.charge()
    assert {**pump.answer(other, says("bob", other["challenge"])), "say": ""}.keys() == answer.keys()
    assert failures(database) == 2
    assert answer["challenge"] != charge["challenge"]
    assert pump.answer(charge, says("alice", answer["challenge"]))["status"] == "confirmed"


@pytest.mark.parametrize("name", ["yes", "one"])
def test_too_little_asks_again_and_is_nobodys_failure(pump: Pump, database: Database, name: str) -> None:
    charge = pump.charge()
    told = [pump.answer(charge, recording("alice", name))["status"] for _ in range(apps.MOST_TRIES)]
    assert told == ["again", "again", "refused"]
    assert failures(database) == 0


def test_noise_asks_again(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    noise = read_audio(shipped("fixtures/audio/noise/babble.wav"))
    assert pump.answer(charge, noise)["status"] == "again"
    assert pump.answer(charge, np.zeros(16_000, np.int16))["status"] == "again"
    assert payments(database) == []


def test_no_declines(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    assert pump.answer(charge, recording("alice", "no")) == {"status": "declined", "say": "Nothing is paid."}
    assert pump.answer(charge, says("alice", charge["challenge"]))["status"] == "declined"
    assert (pump.status(charge), payments(database)) == ("declined", [])


def test_a_plain_yes_is_enough_up_to_what_she_allowed(pump: Pump, database: Database) -> None:
    bind(database, pump, yes_limit_minor=300)
    small, large = pump.charge(300), pump.charge(301)
    assert small["challenge"] is None
    assert small["prompt"]["text"].endswith("To pay 3 US dollars, say yes. To stop, say no.")
    assert large["challenge"]
    assert pump.answer(small, says("alice", "12"))["status"] == "again"
    assert pump.answer(small, recording("alice", "yes"))["status"] == "confirmed"
    (payment,) = payments(database)
    assert payment.evidence["factors"] == ["spoken yes"]
    assert pump.answer(large, recording("alice", "yes"))["status"] == "again"


@pytest.mark.parametrize(
    ("said", "status"),
    [("pay", "confirmed"), ("confirm", "confirmed"), ("cancel", "declined"), ("do_not_pay", "again")],
)
def test_other_words_for_yes_and_no_are_understood(pump: Pump, database: Database, said: str, status: str) -> None:
    bind(database, pump, yes_limit_minor=300)
    assert pump.answer(pump.charge(300), recording("alice", said))["status"] == status
    assert len(payments(database)) == (status == "confirmed")


def test_a_recording_of_an_earlier_answer_is_refused(
    pump: Pump, database: Database, alice: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recordings are let through for test customers alone, and this one is none from here on."""
    monkeypatch.setattr(apps, "challenge", lambda _keyring, _charge: "48152290")
    spoken = says("alice", "48152290")
    assert pump.answer(pump.charge(), spoken)["status"] == "confirmed"
    with database.transaction() as session:
        session.get_one(Customer, alice.id).test = False
        assert session.scalars(select(UtterancePrint.channel)).all() == ["app"]
    assert pump.answer(pump.charge(), spoken)["status"] == "again"
    with database.transaction() as session:
        last = session.scalars(select(Turn).order_by(Turn.at.desc())).first()
        assert last is not None
        assert last.decisions["replay"][0][0] == "replayed"
    assert failures(database) == 1


def test_a_yes_cut_out_of_what_she_said_before_is_refused(
    pump: Pump, database: Database, alice: Customer, keyring: Keyring
) -> None:
    bind(database, pump, yes_limit_minor=300)
    with database.transaction() as session:  # what the thief has on tape
        consent_id = session.scalars(select(VoiceprintRow.consent_id)).one()
        kept = Sound(recording("alice", "yes")).fingerprint(utterances.secret_of(session, alice.id, keyring, now()))
        utterances.remember(
            session, alice.id, kept, call_sid="CAx", step="1", consent_id=consent_id, keyring=keyring, now=now()
        )
        session.get_one(Customer, alice.id).test = False
    charge = pump.charge(300)
    assert pump.answer(charge, recording("alice", "yes"))["status"] == "again"
    assert (payments(database), failures(database)) == ([], 1)
    pump.answer(charge, recording("alice", "pay"))
    with database.transaction() as session:
        turns = session.scalars(select(Turn).order_by(Turn.step)).all()
        assert [turn.decisions["replay"][0][0] for turn in turns] == ["replayed", "fresh"]
        assert len(session.scalars(select(UtterancePrint)).all()) == 1  # nobody knows whose a yes was
    assert failures(database) == 1


@pytest.mark.parametrize("said", ["digits", "yes", "no"])
def test_of_every_answer_stands_on_record_whether_it_was_a_recording_and_when_it_came(
    pump: Pump, database: Database, said: str
) -> None:
    bind(database, pump, yes_limit_minor=300)
    charge = pump.charge(301 if said == "digits" else 300)
    pcm = says("alice", charge["challenge"]) if said == "digits" else recording("alice", said)
    pump.answer(charge, pcm)
    with database.transaction() as session:
        decided = session.scalars(select(Turn)).one().decisions
    assert decided["replay"] == [["nothing to compare", 0.0]]
    assert (decided["begun_ms"], decided["ended_ms"]) == (None, len(pcm) // 8)


def test_many_failures_lock_and_the_telephone_stays_open(pump: Pump, database: Database, alice: Customer) -> None:
    for _ in range(2):
        charge = pump.charge()
        for _ in range(apps.MOST_TRIES):
            asked = pump.shop.get(f"/app-charges/{charge['id']}").get_json()
            pump.answer(charge, says("bob", asked["challenge"]))
    charge = pump.charge()
    assert pump.answer(charge, says("alice", charge["challenge"]))["status"] == "again"
    with database.transaction() as session:
        assert budget.is_locked(session, alice.id, now(), attested=False)
        assert not budget.is_locked(session, alice.id, now(), attested=True)


# --- what stands in the way


def refuses_though_right(pump: Pump, charge: dict[str, object], database: Database) -> None:
    answer = pump.answer(charge, says("alice", str(charge["challenge"])))
    assert answer == {"status": "refused", "say": "That did not work. Nothing is paid."}
    assert payments(database) == []
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(MerchantBill)) == 0
        assert session.scalar(select(func.count()).select_from(Bill)) == 0


def test_frozen_payments_are_refused(pump: Pump, database: Database, alice: Customer) -> None:
    charge = pump.charge()
    with database.transaction() as session:
        freezes.freeze(session, alice.id, who="test", now=now())
    refuses_though_right(pump, charge, database)


def test_who_looks_after_her_is_told_of_what_was_not_allowed(
    pump: Pump, database: Database, alice: Customer, keyring: Keyring
) -> None:
    with database.transaction() as session:
        guardian = add_person(session, keyring)
        appoint(session, Role.GUARDIAN, alice, guardian)
        freezes.freeze(session, alice.id, who="test", now=now())
    refuses_though_right(pump, pump.charge(1_251), database)
    assert sent(database, guardian, "ward.attempted", keyring)["amount_minor"] == 1_251


def test_a_merchant_closed_meanwhile_is_paid_nothing(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    with database.transaction() as session:
        session.get_one(Merchant, pump.shop.merchant_id).closed_at = now()
    said = pump.answer(charge, says("alice", charge["challenge"]))
    assert (said["status"], payments(database)) == ("refused", [])


def test_what_was_unbound_meanwhile_is_refused(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    assert pump.shop.delete(f"/bindings/{pump.binding_id}").status_code == 204
    refuses_though_right(pump, charge, database)
    assert pump.ask().get_json()["code"] == "conflict"


def test_a_revoked_card_is_refused(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    with database.transaction() as session:
        session.execute(update(Card).values(revoked_at=now()))
    refuses_though_right(pump, charge, database)


def test_an_expired_charge_is_refused(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    with database.transaction() as session:
        session.execute(update(AppCharge).values(expires_at=now() - timedelta(seconds=1)))
    assert pump.status(charge) == "expired"
    refuses_though_right(pump, charge, database)


def test_limits_of_a_charge_of_a_day_and_of_the_currency(pump: Pump, database: Database) -> None:
    bind(database, pump, limit_minor=2_000, day_limit_minor=3_000)
    for amount, currency in ((2_001, "USD"), (1_000, "EUR")):
        given = pump.ask(amount, currency=currency)
        assert (given.status_code, given.get_json()["code"]) == (409, "conflict")
    first, second = pump.charge(2_000), pump.charge(1_500)  # each by itself is below the day's
    assert pump.answer(first, says("alice", first["challenge"]))["status"] == "confirmed"
    assert pump.answer(second, says("alice", second["challenge"]))["status"] == "refused"
    assert pump.ask(1_001).status_code == 409
    assert pump.ask(1_000).status_code == 201
    assert len(payments(database)) == 1


def test_two_uploads_at_once_are_one_payment(pump: Pump, database: Database) -> None:
    charge = pump.charge()
    bodies = [wav(says("alice", charge["challenge"])) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda body: pump.send(charge, body).get_json()["status"], bodies))
    assert answers == ["confirmed"] * 4
    assert len(payments(database)) == 1


def test_charges_at_once_count_each_other_in_the_days_limit(pump: Pump, database: Database) -> None:
    bind(database, pump, limit_minor=2_000, day_limit_minor=3_000)
    charges = [pump.charge(1_500) for _ in range(3)]
    bodies = [wav(says("alice", charge["challenge"])) for charge in charges]
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda at: pump.send(charges[at], bodies[at]).get_json()["status"], range(3)))
    assert sorted(answers) == ["confirmed", "confirmed", "refused"]
    assert len(payments(database)) == 2


# --- recordings


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("yes.wav", bytes(2_000))
    return made.getvalue()


def file(samples: np.ndarray, rate: int, kind: str, encoding: str) -> bytes:
    made = io.BytesIO()
    soundfile.write(made, samples, rate, format=kind, subtype=encoding)
    return made.getvalue()


NOTHING = np.zeros(16_000, np.float32)


@pytest.mark.parametrize(
    ("body", "media_type", "status"),
    [
        (b"", "audio/wav", 422),
        (b"yes", "text/plain", 415),
        (b'{"answer": "yes"}', "application/json", 415),
        (zipped(), "audio/wav", 422),
        (file(NOTHING, 16_000, "OGG", "VORBIS")[:-100], "audio/ogg", 422),
        (file(np.zeros((1_600, 10)), 16_000, "WAV", "PCM_16"), "audio/wav", 422),
        (file(NOTHING, 192_000, "WAV", "PCM_16"), "audio/wav", 422),
        (file(np.full(16_000, np.nan, np.float32), 16_000, "WAV", "FLOAT"), "audio/wav", 422),
        (file(np.zeros(16 * 8_000, np.int16), 8_000, "FLAC", "PCM_16"), "audio/flac", 413),
        (bytes(LONGEST_BODY_BYTES + 1), "audio/wav", 413),
    ],
)
def test_a_recording_that_is_none_is_refused_and_costs_no_try(
    pump: Pump, database: Database, body: bytes, media_type: str, status: int
) -> None:
    charge = pump.charge()
    given = pump.send(charge, body, media_type)
    assert (given.status_code, given.mimetype) == (status, "application/problem+json")
    with database.transaction() as session:
        assert session.get_one(AppCharge, charge["id"]).tries == 0


def test_a_hundred_megabytes_are_refused_before_they_are_read(pump: Pump) -> None:
    class Endless(io.RawIOBase):
        taken = 0

        def readinto(self, into: bytearray) -> int:  # type: ignore[override]
            self.taken += len(into)
            return len(into)

    body = Endless()
    given = pump.client.post(
        pump.charge()["upload_url"],
        content_type="audio/wav",
        environ_overrides={"wsgi.input": body, "CONTENT_LENGTH": "100000000"},
    )
    assert given.status_code == 413
    assert body.taken <= 2 * LONGEST_BODY_BYTES


@pytest.mark.parametrize(
    ("kind", "encoding", "media_type"), [("FLAC", "PCM_16", "audio/flac"), ("OGG", "OPUS", "audio/ogg")]
)
def test_other_formats_are_heard_as_well(pump: Pump, kind: str, encoding: str, media_type: str) -> None:
    charge = pump.charge()
    body = file(says("alice", charge["challenge"]), 8_000, kind, encoding)
    assert pump.send(charge, body, media_type).get_json()["status"] == "confirmed"
    raw = pump.charge()
    spoken = says("alice", raw["challenge"]).astype(">i2").tobytes()
    assert pump.send(raw, spoken, "audio/L16;rate=8000").get_json()["status"] == "confirmed"


def test_nothing_of_a_recording_is_kept_or_logged(
    pump: Pump, database: Database, redis_client: redis.Redis, tmp_path: Path
) -> None:
    charge = pump.charge()
    body = wav(says("alice", charge["challenge"]))
    files = {path for path in tmp_path.rglob("*") if path.suffix != ".sqlite3-wal"}
    with capture_logs() as logs:
        assert pump.send(charge, body).get_json()["status"] == "confirmed"
    assert {path for path in tmp_path.rglob("*") if path.suffix != ".sqlite3-wal"} == files
    pieces = [body[at : at + 64] for at in range(1_000, len(body) - 64, 5_000)]
    kept = [path.read_bytes() for path in tmp_path.rglob("*.sqlite3*")]
    kept += [redis_client.dump(key) or b"" for key in redis_client.scan_iter()]
    assert not any(piece in one for piece in pieces for one in kept)
    assert charge["challenge"] not in str(logs)
    with database.transaction() as session:
        for turn in session.scalars(select(Turn)):
            assert charge["challenge"] not in str(turn.decisions)


# --- addresses


def test_only_the_charges_own_token_opens_it(pump: Pump) -> None:
    mine, other = pump.charge(), pump.charge()
    token = other["upload_url"].split("token=")[1]
    address = mine["upload_url"].split("token=")[0]
    for given in ("", "x", token, "0" * 48, mine["id"] + token[16:]):
        answer = pump.client.post(f"{address}token={given}", data=wav(recording("alice", "no")))
        assert answer.status_code == 404
    assert pump.status(mine) == "asking"


def test_a_browser_may_send_it_from_another_origin(pump: Pump) -> None:
    charge = pump.charge()
    asked = pump.client.options(charge["upload_url"], headers={"Origin": "https://app.example.com"})
    assert asked.headers["Access-Control-Allow-Origin"] == "*"
    assert "Content-Type" in asked.headers["Access-Control-Allow-Headers"]
    sent = pump.send(charge, b"", "audio/wav")
    assert sent.headers["Access-Control-Allow-Origin"] == "*"


def test_a_charge_is_not_answered_without_end(pump: Pump) -> None:
    charge = pump.charge()
    told = [pump.send(charge, b"").status_code for _ in range(ANSWERS + 1)]
    assert told == [422] * ANSWERS + [429]


def test_the_same_request_is_asked_again_with_what_is_to_be_said_now(pump: Pump) -> None:
    asked = {"app": pump.app_id, "customer": pump.reference, "amount_minor": 500, "currency": "USD"}
    first = pump.shop.made("/app-charges", asked, key="the-same-key")
    pump.answer(first, recording("alice", "yes"))
    again = pump.shop.made("/app-charges", asked, key="the-same-key")
    assert again["id"] == first["id"]
    assert again["challenge"] != first["challenge"]
    assert again["challenge"] == pump.shop.get(f"/app-charges/{first['id']}").get_json()["challenge"]


def test_a_customer_is_not_asked_without_end(pump: Pump) -> None:
    told = [pump.ask().status_code for _ in range(21)]
    assert told == [201] * 20 + [429]


def test_of_another_merchant_nothing_is_seen(
    pump: Pump, client: FlaskClient, database: Database, alice: Customer
) -> None:
    charge, other = pump.charge(), program(client, database, "Other Shop")
    theirs = other.made("/customers", {"reference": "c", "number": alice.number})["id"]
    asked = {"app": pump.app_id, "customer": theirs, "amount_minor": 5, "currency": "USD"}
    assert other.post("/app-charges", asked).status_code == 404
    assert other.post(f"/apps/{pump.app_id}/bindings", {"customer": theirs}).status_code == 404
    assert other.get(f"/app-charges/{charge['id']}").status_code == 404
    assert other.get(f"/bindings/{pump.binding_id}").status_code == 404
    assert other.delete(f"/bindings/{pump.binding_id}").status_code == 404
    for path in ("/apps", "/bindings", "/app-charges"):
        assert other.get(path).get_json()["data"] == []
        assert len(pump.shop.get(path).get_json()["data"]) == 1
    own = an_app(client, database, other, alice, "Own")
    assert own.ask().status_code == 409  # bound is the other's app, not this one


# --- the websocket


class Line:
    """One side of a websocket, without a network: what the app sends is given, what it is told is kept."""

    def __init__(self, frames: list[bytes | str]) -> None:
        self.frames, self.told, self.taken = iter(frames), [], 0  # type: ignore[var-annotated]

    def receive(self, timeout: float) -> bytes | str | None:
        self.taken += 1
        return next(self.frames, None)

    def send(self, message: str) -> None:
        self.told.append(message)

    def close(self) -> None:
        pass


def streamed(pump: Pump, service: Flask, charge: dict[str, object], frames: list[bytes | str]) -> tuple[dict, Line]:  # type: ignore[type-arg]
    line = Line(frames)
    path = str(charge["stream_url"]).replace("wss://pay.example.com", "")
    with service.test_request_context(path):
        voice.converse(line, str(charge["id"]))  # type: ignore[arg-type]
    return json.loads(line.told[0]), line


def in_frames(pcm: np.ndarray, after_s: float = 3.0) -> list[bytes | str]:
    samples = np.concatenate([pcm, np.zeros(int(8_000 * after_s), np.int16)]).astype("<i2").tobytes()
    return [samples[at : at + 320] for at in range(0, len(samples), 320)]


def test_a_stream_ends_by_itself_when_enough_was_heard(pump: Pump, service: Flask, database: Database) -> None:
    charge = pump.charge()
    frames = in_frames(np.pad(says("alice", str(charge["challenge"])), (8_000, 0)))
    answer, line = streamed(pump, service, charge, frames)
    assert answer["status"] == "confirmed"
    assert line.taken < len(frames)
    assert len(payments(database)) == 1
    with database.transaction() as session:
        decided = session.scalars(select(Turn)).one().decisions
    assert 800 < decided["begun_ms"] < 1_500 < decided["ended_ms"] < 20 * len(frames)


def test_an_app_may_end_its_stream(pump: Pump, service: Flask) -> None:
    charge = pump.charge()
    frames = [*in_frames(recording("alice", "no"), after_s=0.1), "end"]
    assert streamed(pump, service, charge, frames)[0]["status"] == "declined"


def test_frames_that_are_none_are_refused(pump: Pump, service: Flask) -> None:
    charge = pump.charge()
    for frames in (["hello"], [b"123"]):
        assert streamed(pump, service, charge, frames)[0]["code"] == "invalid"  # type: ignore[arg-type]
    assert pump.status(charge) == "asking"


def test_a_stream_of_another_charge_is_not_opened(pump: Pump, service: Flask) -> None:
    mine, other = pump.charge(), pump.charge()
    charge = {**mine, "stream_url": other["stream_url"].replace(other["id"], mine["id"], 1)}
    assert streamed(pump, service, charge, ["end"])[0]["code"] == "not_found"
