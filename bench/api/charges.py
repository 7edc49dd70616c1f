"""An app charge, from the last byte of what was said to the answer.

A service with its models, a SQLite database and a Redis of its own, on a real server; a customer whose voice is a
fixture's; each charge is answered over HTTP with the right digits as WAV or as Opus, one after the other and then two
at once. The clock starts when the last byte of a recording is sent and stops when the whole answer is there; the
payment is started in between.
"""

from __future__ import annotations

import argparse
import http.client
import io
import json
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table
from sqlalchemy import update
from werkzeug.serving import WSGIRequestHandler, make_server

from bench.bars import Bars
from ivr import log, services
from ivr.app import create_app
from ivr.customers import apps, merchants
from ivr.customers.apps import AppBinding
from ivr.customers.cards import add_card
from ivr.customers.models import VoiceprintRow
from ivr.customers.register import add_customer
from ivr.customers.voiceprints import record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.resources import shipped
from ivr.settings import Settings
from ivr.speech.audio import Pcm, read_audio
from ivr.store import redis
from voiceprint import Encoder, Scorer, enrol

TARGET_S = 0.5
AT_ONCE = (1, 2)
LEAST_CONFIRMED = 0.8  # of the charges; the others are asked again
KINDS = {"WAV": ("PCM_16", "audio/wav"), "OGG": ("OPUS", "audio/ogg")}


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class Stage:
    """A service, and an app that a customer has bound."""

    def __init__(self, folder: Path) -> None:
        log.configure("CRITICAL")
        self.settings = Settings(data_dir=folder, public_url="http://127.0.0.1", _env_file=None)  # type: ignore[call-arg]
        self.keyring = Keyring.load(self.settings)
        self.services = services.build(self.settings)
        self.now = datetime.now(UTC)
        self.binding_id = self._bound()
        app = create_app(self.settings, self.services)
        log.configure("CRITICAL")  # which the application has set anew
        self.server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        redis.stop(self.settings)

    def charge(self) -> tuple[str, str]:
        """Path and digits of a new charge."""
        with self.services.database.transaction() as session:
            binding = session.get_one(AppBinding, self.binding_id)
            app = apps.require_app(session, binding.app_id)
            charge = apps.open_charge(
                session, app, binding, amount_minor=100, currency="USD", description="", now=datetime.now(UTC)
            )
            token = apps.charge_token(self.keyring, charge.id)
            return f"/v1/app-charges/{charge.id}/voice?token={token}", apps.challenge(self.keyring, charge)

    def answer(self, path: str, body: bytes, media_type: str) -> tuple[str, float]:
        """What an answer comes to, and the seconds from its last byte."""
        line = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=30)
        line.putrequest("POST", path)
        line.putheader("Content-Type", media_type)
        line.putheader("Content-Length", str(len(body)))
        line.endheaders()
        line.send(body[:-1])
        time.sleep(0.05)  # an app sends while its user speaks: all but the end is there
        sent = time.perf_counter()
        line.send(body[-1:])
        said = json.loads(line.getresponse().read())["status"]
        took_s = time.perf_counter() - sent
        line.close()
        return said, took_s

    def _bound(self) -> str:
        encoder, scorer = Encoder.load(self.settings.voice_model_dir), Scorer.load(self.settings.voice_model_dir)
        heard = [encoder.embed(_recording(f"enrol_{i}")) for i in (1, 2, 3)]
        now = self.now
        with self.services.database.transaction() as session:
            customer = add_customer(session, phones=["+14155550101"], sms=["+14155550101"], test=True, now=now)
            card = add_card(
                session, customer.id, "4242424242424242", exp_year=now.year + 2, exp_month=1, token="tok",
                authorised_by="bench", keyring=self.keyring, now=now,
            )  # fmt: skip
            consent = record_consent(session, customer.id, text_version="bench", channel="bench", now=now)
            store_voiceprint(
                session,
                customer.id,
                enrol(heard, scorer.enrolment_limits).to_bytes(),
                encoder.model_id,
                encoder.sample_rate,
                "telephone",
                consent.id,
                self.keyring,
                now,
            )
            session.execute(update(VoiceprintRow).values(provisional_until=now - timedelta(hours=1)))
            merchant = merchants.add_merchant(session, "City Water", who="bench", now=now)
            app = apps.add_app(session, merchant, "Pump", who="bench", now=now)
            referred = merchants.refer(session, merchant.id, "c", phone=None, number=customer.number, now=now)
            binding = apps.request_binding(session, app, referred, now)
            apps.bind(session, binding.id, customer.id, card.id, currency="USD", limit_minor=1_000, now=now)
            return binding.id


def _recording(name: str) -> Pcm:
    return read_audio(shipped(f"fixtures/audio/alice/{name}.wav"))


def spoken(digits: str, kind: str, takes: random.Random) -> bytes:
    """The digits by the customer's voice, as a file."""
    pcm = np.concatenate([_recording(f"digits/{digit}_{takes.randint(1, 4)}") for digit in digits])
    made = io.BytesIO()
    soundfile.write(made, pcm, 8_000, format=kind, subtype=KINDS[kind][0])
    return made.getvalue()


def _answered(stage: Stage, charges: int, at_once: int, kind: str) -> tuple[list[float], int]:
    """Seconds of each charge, and how many were confirmed at the first try.

    Raises RuntimeError unless nearly all were: else another thing is timed.
    """
    takes = random.Random(at_once)
    asked = [(path, spoken(digits, kind, takes)) for path, digits in (stage.charge() for _ in range(charges))]
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda one: stage.answer(one[0], one[1], KINDS[kind][1]), asked))
    confirmed = sum(said == "confirmed" for said, _ in answers)
    if confirmed < LEAST_CONFIRMED * charges:
        raise RuntimeError(f"only {confirmed} of {charges} charges were confirmed")
    return [took_s for _, took_s in answers], confirmed


def measure(options: argparse.Namespace, console: Console, bars: Bars) -> None:
    table = Table("an app charge, from last byte to answer", "at once", "p50 ms", "p95 ms", "most ms", "confirmed", "n")
    alone: list[float] = []
    with tempfile.TemporaryDirectory(prefix="ivr-") as folder:
        stage = Stage(Path(folder))
        try:
            _answered(stage, 3, 1, "WAV")  # the first pay for what is loaded lazily
            for at_once in AT_ONCE:
                for kind in KINDS:
                    took, confirmed = _answered(stage, options.charges // 2, at_once, kind)
                    alone += took if at_once == 1 else []
                    ms = (f"{1000 * float(np.quantile(took, q)):.0f}" for q in (0.5, 0.95, 1.0))
                    table.add_row(kind, str(at_once), *ms, str(confirmed), str(len(took)))
        finally:
            stage.close()
    console.print(table)
    p95_s = float(np.quantile(alone, 0.95))
    bars.add("app_charge_p95_s", p95_s < TARGET_S, f"{p95_s:.3f}", f"<{TARGET_S}", len(alone))
