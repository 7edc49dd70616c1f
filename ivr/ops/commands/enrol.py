"""``ivr enrol``: a customer's voiceprint from recordings that the operator has."""

from __future__ import annotations

import click

from ivr.clock import utc_now
from ivr.customers import audit, utterances
from ivr.customers.errors import InvalidInput
from ivr.customers.notices import notify
from ivr.customers.register import require_customer
from ivr.customers.text import clean_text
from ivr.customers.voiceprints import CONSENT_TEXT_VERSION, record_consent, store_voiceprint
from ivr.keys import Keyring
from ivr.ops import desk
from ivr.settings import settings
from ivr.speech.audio import SAMPLE_RATE, AudioError, read_audio
from voiceprint import Encoder, ModelError, PoorQuality, Scorer, Voiceprint, enrol
from voiceprint.replay import Sound


@click.command()
@click.argument("customer")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--consent", required=True, help="How she agreed, e.g. 'signed form of 3 May'; it is kept.")
@click.option(
    "--text-version", default=CONSENT_TEXT_VERSION, show_default=True, help="Of what she agreed to."
)
def command(customer: str, files: tuple[str, ...], consent: str, text_version: str) -> None:
    """Enrol a customer's voice from three recordings or more (WAV or FLAC, any rate) of one person."""
    now = utc_now()
    consent = clean_text(consent, "the consent", least=3, most=150)
    keyring = Keyring.load(settings())
    with desk.transaction() as session:
        customer_id = require_customer(session, customer).id
    voiceprint, sample_rate, sounds = _voiceprint(files)
    with desk.transaction() as session:
        given = record_consent(
            session, customer_id, text_version=text_version, channel=f"operator: {consent}", now=now
        )
        store_voiceprint(
            session,
            customer_id,
            voiceprint.to_bytes(),
            model_id=voiceprint.model_id,
            sample_rate=sample_rate,
            channel="recordings",
            consent_id=given.id,
            keyring=keyring,
            now=now,
        )
        secret = utterances.secret_of(session, customer_id, keyring)
        for number, sound in enumerate(sounds, 1):
            utterances.remember(
                session,
                customer_id,
                sound.fingerprint(secret),
                call_sid=f"recordings:{given.id}",
                step=str(number),
                channel="recordings",
                consent_id=given.id,
                keyring=keyring,
                now=now,
            )
        notify(session, customer_id, "enrolled", {}, now)
        audit.record(session, desk.who(), "voiceprint.enrolled", customer_id, now, recordings=len(files))
    click.echo(f"customer {customer} is enrolled from {voiceprint.net_speech_s:.1f} s of speech")


def _voiceprint(files: tuple[str, ...]) -> tuple[Voiceprint, int, list[Sound]]:
    """The voiceprint, the rate of the audio that its model takes in Hz, and what was said."""
    try:
        recordings = [read_audio(file) for file in files]
        folder = settings().voice_model_dir
        encoder, limits = Encoder.load(folder), Scorer.load(folder).enrolment_limits
        voiceprint = enrol([encoder.embed(pcm, SAMPLE_RATE) for pcm in recordings], limits)
        return voiceprint, encoder.sample_rate, [Sound(pcm) for pcm in recordings]
    except (AudioError, PoorQuality) as error:
        raise InvalidInput(str(error)) from None
    except ModelError as error:
        raise click.ClickException(str(error)) from None
