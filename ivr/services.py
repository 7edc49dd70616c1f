"""What one process of the service holds, built once: database, Redis, keys, models, and the call on top of them."""

from __future__ import annotations

from dataclasses import dataclass

from ivr.call.engine import Engine
from ivr.call.judging import Judge
from ivr.call.prompts import spoken_amount
from ivr.call.session import CallStore
from ivr.clock import utc_now
from ivr.keys import Keyring
from ivr.locales import LOCALES
from ivr.payments.banks import connect
from ivr.payments.notices import Confirmations
from ivr.payments.pending import PendingDebits
from ivr.settings import Settings
from ivr.speech.recogniser import DigitModel
from ivr.store import redis
from ivr.store.db import Database
from ivr.store.migrations import upgrade
from voiceprint import Encoder, Scorer


@dataclass(frozen=True)
class Services:
    """Shared by the threads of a process."""

    settings: Settings
    database: Database
    calls: CallStore
    engine: Engine
    judge: Judge
    digits: DigitModel
    digits_zh: DigitModel | None = None
    confirmations: Confirmations | None = None  # where the bank confirms debits

    def digit_model(self, locale: str) -> DigitModel | None:
        """What hears callers in a language; None where only their keys are taken."""
        return self.digits_zh if locale == "zh" else self.digits


def build(settings: Settings) -> Services:
    """Connect, bring the database up to date, load the models. Raises the typed errors of each."""
    for locale in LOCALES:
        spoken_amount(1, "USD", locale)  # reads the locale's tables now, not while a first caller waits
    bank = connect(settings)  # never asked here: only whether the settings name one that could be
    database = Database(settings.sqlalchemy_url())
    upgrade(database)
    keyring = Keyring.load(settings)
    client = redis.connect(settings)
    calls = CallStore(client, keyring)
    encoder, scorer = Encoder.load(settings.voice_model_dir), Scorer.load(settings.voice_model_dir)
    judge = Judge(database, calls, keyring, encoder, scorer, utc_now)
    digits_zh = DigitModel(settings.digit_model_zh_dir, "zh") if settings.digit_model_zh_dir else None
    return Services(
        settings=settings,
        database=database,
        calls=calls,
        engine=Engine(
            calls,
            database,
            judge,
            utc_now,
            bank=bank.name,
            test_bank=bank.test_only,
            locale=settings.locale,
            heard=LOCALES if digits_zh else ("en",),
        ),
        judge=judge,
        digits=DigitModel(settings.digit_model_dir),
        digits_zh=digits_zh,
        confirmations=Confirmations(database, PendingDebits(client, keyring), utc_now),
    )
