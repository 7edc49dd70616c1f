"""A rotation with everything in the store that a key protects: still readable, sealed anew, the old key dropped."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyotp
import pytest
from click.testing import CliRunner, Result
from desk_support import PASSWORD, add_operator, code
from sqlalchemy import select
from sqlalchemy.orm import Session

from ivr.approval import links
from ivr.approval.models import SignInCode
from ivr.console.operators import accounts
from ivr.customers import apps, audit, card_requests, cards, enrolment, merchants, pins
from ivr.customers.apps import AppCharge, ChargeStatus
from ivr.customers.models import Audit, Card, ContactKind
from ivr.customers.register import add_contact, add_customer
from ivr.customers.voiceprints import load_voiceprint, record_consent, store_voiceprint
from ivr.keys import PURPOSES, Keyring, drop, rotate
from ivr.ops.cli import main
from ivr.ops.keys import RESTARTED_WITHIN, needed, reseal
from ivr.purchases import buy
from ivr.purchases.models import Purchase
from ivr.settings import Settings
from ivr.settings import settings as process_settings
from ivr.speech.cards import CardHash, which_card
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from ivr.webhooks.deliver import endpoint_secret
from ivr.webhooks.models import WebhookEndpoint

PAN, PIN = "4242424242424242", "480577"
VOICE = b"a voiceprint"


class Kept:
    """What a customer, an operator and a merchant have in a database, each under the key in use."""

    def __init__(self, database: Database, keyring: Keyring, now: datetime) -> None:
        self.database, self.now = database, now
        with database.transaction() as session:
            self.customer = add_customer(session, phones=["+15035550123"], now=now).id
            self.card = cards.add_card(
                session, self.customer, PAN, exp_year=2045, exp_month=4, token="t1", authorised_by="form",
                keyring=keyring, now=now,
            ).id  # fmt: skip
            pins.set_pin(session, self.customer, PIN, keyring, now)
            self.code = enrolment.issue_code(session, self.customer, keyring, now)
            consent = record_consent(session, self.customer, text_version="v", channel="form", now=now).id
            store_voiceprint(session, self.customer, VOICE, "m1", 8000, "t", consent, keyring, now)
            endpoint = WebhookEndpoint(
                id="e1", merchant="Shop", url="https://a.example/", key_id=keyring.active("session")[0], created_at=now
            )
            session.add(endpoint)
            self.secret = endpoint_secret(keyring, endpoint)
        self.totp: pyotp.TOTP = add_operator(database, keyring, "ann")

    def unreadable(self, keyring: Keyring) -> set[str]:
        """What cannot be read with these keys, or is not what was stored. Nothing is hashed or sealed anew."""
        with self.database.transaction() as session:
            card = session.get_one(Card, self.card)
            hashes = [CardHash(card.id, card.pan_key_id, card.pan_hash)]
            read = {
                "card": which_card([PAN], self.customer, hashes, keyring.all("pan")) == card.id,
                "code": enrolment.check_code(session, self.customer, self.code, keyring, self.now),
                "voice": load_voiceprint(session, self.customer, "m1", keyring) == VOICE,
                "webhook": endpoint_secret(keyring, session.get_one(WebhookEndpoint, "e1")) == self.secret,
            }
            session.rollback()
        return {name for name, right in read.items() if not right}


@pytest.fixture
def kept(database: Database, keyring: Keyring) -> Kept:
    return Kept(database, keyring, datetime.now(UTC))


def test_rows_are_counted_by_the_key_that_they_need(kept: Kept, keyring: Keyring) -> None:
    with kept.database.transaction() as session:
        rows = needed(session, keyring, kept.now)
    assert {purpose: dict(rows[purpose]) for purpose in PURPOSES} == {
        purpose: {keyring.active(purpose)[0]: count}
        for purpose, count in {"pan": 1, "pin": 3, "voiceprint": 1, "session": 1}.items()
    }


def test_what_an_old_key_made_is_read_until_it_is_made_anew(kept: Kept, keyring: Keyring, settings: Settings) -> None:
    new = {purpose: rotate(settings, purpose) for purpose in PURPOSES}
    rotated = Keyring.load(settings)
    assert kept.unreadable(rotated) == set()
    with kept.database.transaction() as session:
        assert reseal(session, rotated) == 2  # the voiceprint and the second factor
        assert reseal(session, rotated) == 0
        cards.rehash(session, session.get_one(Card, kept.card), PAN, rotated)  # as her next call does
        assert pins.check_pin(session, kept.customer, PIN, rotated)
        kept.code = enrolment.issue_code(session, kept.customer, rotated, kept.now)
        rows = needed(session, rotated, kept.now)
    assert kept.unreadable(rotated) == set()
    assert {purpose: set(rows[purpose]) for purpose in PURPOSES} == {
        **{purpose: {new[purpose]} for purpose in PURPOSES},
        "session": {keyring.active("session")[0]},  # the merchant holds the secret that was made with it
    }
    with kept.database.transaction() as session:
        assert accounts.prove(session, "ann", PASSWORD, code(kept.totp, 0, kept.now), rotated, kept.now)


def test_a_code_past_its_use_needs_no_key(kept: Kept, settings: Settings) -> None:
    old, _ = Keyring.load(settings).active("pin")
    rotate(settings, "pin")
    drop(settings, "pin", old)
    with kept.database.transaction() as session:
        assert not enrolment.check_code(session, kept.customer, kept.code, Keyring.load(settings), kept.now)


def test_pages_that_wait_may_need_the_session_key_before(kept: Kept, keyring: Keyring, settings: Settings) -> None:
    old, now = keyring.active("session")[0], kept.now
    with kept.database.transaction() as session:
        session.delete(session.get_one(WebhookEndpoint, "e1"))
        what_waits(session, kept.customer, "near", now)
        new = rotate(settings, "session")
        rotated = Keyring.load(settings)
        assert needed(session, rotated, now)["session"] == {old: 6, new: 6}
        audit.record(session, "operator ann", "key.rotated", new, now, purpose="session")
        later = now + RESTARTED_WITHIN + timedelta(minutes=1)
        assert needed(session, rotated, now)["session"] == {old: 6, new: 6}
        assert needed(session, rotated, later)["session"] == {old: 1, new: 1}  # a card that was asked for: for a day
        what_waits(session, kept.customer, "far", later)
        assert needed(session, rotated, later)["session"] == {old: 1, new: 7}
        assert needed(session, rotated, now + timedelta(days=1, minutes=1))["session"] == {new: 1}


def what_waits(session: Session, customer_id: str, shop: str, now: datetime) -> None:
    """One of everything that a token or code of the session key opens."""
    contact = add_contact(session, customer_id, ContactKind.EMAIL, f"{shop}@example.com", now)
    links.send_link(session, contact, "payment.asked", now=now)
    links.new_code(session, customer_id, [], now)
    merchant = merchants.add_merchant(session, shop, who="test", now=now)
    referred = merchants.refer(session, merchant.id, "r", phone="+15035550123", number=None, now=now)
    app = apps.add_app(session, merchant, "pump", who="test", now=now)
    binding = apps.request_binding(session, app, referred, now)
    card_requests.request_card(session, referred, bank_token=None, exp_month=None, exp_year=None, now=now)
    session.add(
        AppCharge(
            app_id=app.id, binding_id=binding.id, amount_minor=1, currency="USD", description="", by_voice=True,
            status=ChargeStatus.ASKING, created_at=now, expires_at=now + apps.CHARGE_LIFE,
        )
    )  # fmt: skip
    session.add(
        Purchase(
            merchant_id=merchant.id, merchant_customer_id=referred.id, amount_minor=1, currency="USD",
            product_kind="goods", description="", page="goods", created_at=now, expires_at=now + buy.LIFE,
        )
    )  # fmt: skip
    session.flush()


# ---- the commands ---------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    for name in ("DATA_DIR", "DIGIT_MODEL_DIR", "VOICE_MODEL_DIR"):
        monkeypatch.setenv(f"IVR_{name}", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    process_settings.cache_clear()
    database = Database(f"sqlite:///{tmp_path / 'ivr.sqlite3'}")
    upgrade(database)
    yield Kept(database, Keyring.load(process_settings()), datetime.now(UTC))
    process_settings.cache_clear()


def ivr(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["keys", *arguments], catch_exceptions=False)


def ok(*arguments: str) -> str:
    result = ivr(*arguments)
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_an_operator_rotates_reseals_and_drops_a_key(here: Kept) -> None:
    old, _ = Keyring.load(process_settings()).active("voiceprint")
    assert f"{old} │ in use │ 1" in ok("list")
    assert "restart all processes" in ok("rotate", "voiceprint")
    assert f"{old} │ older  │ 1" in ok("list")
    refused = ivr("drop", "voiceprint", old)
    assert refused.exit_code == 2
    assert "1 rows need" in refused.output
    assert f"{old}: no row needs it any more" in ok("reseal")
    ok("drop", "voiceprint", old)
    assert old not in ok("list")
    assert here.unreadable(Keyring.load(process_settings())) == set()
    with here.database.transaction() as session:
        keys = session.scalars(select(Audit.what).where(Audit.what.startswith("key.")).order_by(Audit.at)).all()
    assert keys == ["key.rotated", "key.resealed", "key.dropped"]


def test_a_session_key_is_kept_while_a_code_waits_that_it_made(here: Kept) -> None:
    with here.database.transaction() as session:
        session.delete(session.get_one(WebhookEndpoint, "e1"))
        links.new_code(session, here.customer, [], here.now)
        before = Keyring.load(process_settings())
        said = links.reveal({"code_id": session.get_one(SignInCode, here.customer).id}, before, None)["code"]
    old, _ = before.active("session")
    ok("rotate", "session")
    assert f"older session key {old}: 1 rows need it" in ok("reseal")
    assert "1 rows need the session key" in ivr("drop", "session", old).output
    with here.database.transaction() as session:
        assert links.use_code(session, here.customer, said, Keyring.load(process_settings()), here.now)
    assert f"older session key {old}: no row needs it any more" in ok("reseal")
    ok("drop", "session", old)


def test_no_key_is_made_while_the_database_is_out_of_reach(here: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    path = process_settings().data_dir / "keys.json"
    before = path.read_text()
    monkeypatch.setenv("IVR_DATABASE_URL", "postgresql+psycopg://ivr@127.0.0.1:1/ivr")
    process_settings.cache_clear()
    refused = ivr("rotate", "pan")
    assert refused.exit_code == 1
    assert "out of reach" in refused.output
    assert path.read_text() == before


def test_where_the_keys_cannot_be_changed_it_is_said_where_they_can(here: Kept) -> None:
    path = process_settings().data_dir / "keys.json"
    before = path.read_text()
    (path.with_suffix(".new") / "in the way").mkdir(parents=True)
    refused = ivr("rotate", "pan")
    assert refused.exit_code == 1
    assert "docs/deployment.md" in refused.output
    assert path.read_text() == before
    with here.database.transaction() as session:
        assert session.scalars(select(Audit).where(Audit.what == "key.rotated")).all() == []


def test_the_key_in_use_and_unknown_ones_are_not_dropped(here: Kept) -> None:
    with here.database.transaction() as session:
        session.delete(session.get_one(WebhookEndpoint, "e1"))
    active, _ = Keyring.load(process_settings()).active("session")
    for key_id in (active, "beef"):
        assert ivr("drop", "session", key_id).exit_code == 1
    assert Keyring.load(process_settings()).active("session")[0] == active


def test_a_key_that_rows_need_and_the_file_lacks_is_shown(here: Kept) -> None:
    (here_keys := process_settings().data_dir / "keys.json").unlink()
    assert ok("list").count("MISSING") == 4
    assert here_keys.exists()
