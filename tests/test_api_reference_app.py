"""The reference app in headless Chromium, whose microphone hears a recording; service and app are real servers."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import redis
import soundfile
from api_support import program
from app_support import Pump, an_app, bind, enrolled, says
from flask import Flask
from people_support import add_person
from playwright.sync_api import Page, expect, sync_playwright
from sqlalchemy import select
from werkzeug.serving import make_server

from ivr.api.reference import create_app as reference_app
from ivr.app import create_app
from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.session import CallStore
from ivr.clock import utc_now
from ivr.customers import apps
from ivr.keys import Keyring
from ivr.payments.models import Payment
from ivr.resources import shipped
from ivr.services import Services
from ivr.settings import Settings
from ivr.speech.recogniser import DigitModel
from ivr.store.db import Database
from voiceprint import Encoder, Scorer

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DIGITS = "48152290"
WAIT_MS = 30_000


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    path = tmp_path / "ivr.sqlite3"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield database
    database.engine.dispose()


@contextmanager
def served(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def microphone(heard: Path) -> Iterator[Page]:
    if CHROMIUM is None:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell("no Chromium: the reference app was not looked at in a browser (Debian: apt-get install chromium)")
    fake = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    # --no-sandbox: Chromium refuses to run as root, as in a container, with it
    args = ["--no-sandbox", *fake, f"--use-file-for-fake-audio-capture={heard}%noloop"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=args)
        yield browser.new_page()
        browser.close()


@pytest.fixture
def pump(
    settings: Settings,
    database: Database,
    redis_client: redis.Redis,
    keyring: Keyring,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Pump, str]]:
    """An app that alice has bound, and where the reference app is; digits are known before, for the recording."""
    monkeypatch.setattr(apps, "challenge", lambda _keyring, _charge: DIGITS)
    encoder, scorer = Encoder.load(shipped("models/voice")), Scorer.load(shipped("models/voice"))
    calls = CallStore(redis_client, keyring)
    judge = Judge(database, calls, keyring, encoder, scorer, utc_now)
    hollow = Flask(__name__)
    server = make_server("127.0.0.1", 0, hollow, threaded=True)
    url = f"http://127.0.0.1:{server.server_port}"
    settings = settings.model_copy(update={"public_url": url})
    engine = Engine(calls, database, judge, utc_now)
    services = Services(settings, database, calls, engine, judge, DigitModel(shipped("models/digits")))
    server.app = create_app(settings, services)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = server.app.test_client()
    shop = program(client, database)
    with database.transaction() as session:
        alice = add_person(session, keyring)
    enrolled(database, keyring, alice, encoder, scorer)
    bound = bind(database, an_app(client, database, shop, alice))
    with served(reference_app(url, shop.key, bound.app_id, bound.reference)) as page:
        yield bound, page
    server.shutdown()
    thread.join()
    server.server_close()


def recorded(tmp_path: Path, voice: str) -> Path:
    """What the microphone hears: a breath, the digits, and then nothing."""
    spoken = says(voice, DIGITS)
    pcm = np.concatenate([np.zeros(6_000, np.int16), spoken, np.zeros(40_000, np.int16)])
    soundfile.write(tmp_path / f"{voice}.wav", np.repeat(pcm, 6), 48_000, subtype="PCM_16")
    return tmp_path / f"{voice}.wav"


def test_a_customer_pays_by_speaking_to_the_page(pump: tuple[Pump, str], database: Database, tmp_path: Path) -> None:
    app, url = pump
    with microphone(recorded(tmp_path, "alice")) as page:
        page.goto(url)
        page.get_by_role("button", name="Pay by voice").click()
        expect(page.locator("#prompt")).to_contain_text("To pay 12 US dollars 50, say: 4 8 1 5, 2 2 9 0.")
        expect(page.locator("#result")).to_contain_text(
            "Thank you. 12 US dollars 50 is being paid to City Water.", timeout=WAIT_MS
        )
    with database.transaction() as session:
        (payment,) = session.scalars(select(Payment)).all()
        assert payment.amount_minor == 1_250


def test_another_voice_pays_nothing_there(pump: tuple[Pump, str], database: Database, tmp_path: Path) -> None:
    app, url = pump
    with microphone(recorded(tmp_path, "bob")) as page:
        page.goto(url)
        page.get_by_role("button", name="Pay by voice").click()
        expect(page.locator("#prompt")).to_contain_text("Sorry, that did not work.", timeout=WAIT_MS)
    with database.transaction() as session:
        assert session.scalars(select(Payment)).all() == []


def test_the_key_stays_on_the_server_and_a_purchase_leads_to_its_page(pump: tuple[Pump, str], tmp_path: Path) -> None:
    app, url = pump
    with microphone(recorded(tmp_path, "alice")) as page:
        seen: list[str] = []
        page.on("request", lambda sent: seen.append(f"{sent.url} {sent.headers}"))
        page.goto(url)
        page.get_by_role("button", name="Buy on the page").click()
        page.wait_for_url("**/pay/purchase/*")
        assert "City Water" in page.inner_text("main")
    assert not any(app.shop.key in one for one in seen)


def test_what_the_service_refuses_is_told(pump: tuple[Pump, str], tmp_path: Path) -> None:
    app, url = pump
    with microphone(recorded(tmp_path, "alice")) as page:
        page.goto(url)
        page.get_by_label("Amount in cents").fill("5001")
        page.get_by_role("button", name="Pay by voice").click()
        expect(page.locator("#result")).to_contain_text("more than the customer lets the app take at once")
