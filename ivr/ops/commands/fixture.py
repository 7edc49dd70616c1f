"""``ivr fixture``: new recordings for scenarios, of published test numbers and made-up digits only."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ivr.customers.errors import InvalidInput
from ivr.customers.lookup import normalise_caller
from ivr.locales import LOCALES
from ivr.ops.commands.call import fixture_cards
from ivr.ops.fixtures import Asked, Kind, NotAsAsked, Recording, asked, heard, keep
from ivr.settings import settings
from ivr.speech.audio import AudioError, read_audio
from ivr.speech.recogniser import DigitModel, DigitModelError

PORT = 8402
PATIENCE_S = 900


@click.group()
def command() -> None:
    """Recordings that scenarios play."""


@command.command()
@click.argument("name")
@click.option(
    "--say", "kind", type=click.Choice([str(kind) for kind in Kind]), required=True,
    help="A test card number; eight digits; or each digit once, to join challenges from.",
)  # fmt: skip
@click.option("--card", default="alice", show_default=True, help="Which of the test numbers of fixtures/cards.toml.")
@click.option("--locale", type=click.Choice(LOCALES), default="en", show_default=True, help="What is spoken.")
@click.option("--from", "wav", type=click.Path(path_type=Path), help="A WAV or FLAC recording of it.")
@click.option("--telephone", help="Or your telephone, as +1...: it calls, is asked, and heard. Needs --url.")
@click.option("--url", help="How the carrier reaches this command; its Voice URL is URL/voice/answer.")
@click.option("--port", default=PORT, show_default=True, help="Where URL leads to, on this machine.")
@click.option("--into", type=click.Path(path_type=Path), default=Path("recordings"), show_default=True)
@click.option("--replace", is_flag=True, help="Put it in place of a recording of this name.")
def record(
    name: str,
    kind: str,
    card: str,
    locale: str,
    wav: Path | None,
    telephone: str | None,
    url: str | None,
    port: int,
    into: Path,
    replace: bool,
) -> None:
    """Record NAME (speaker/what, such as ann/card), from a WAV or one's own telephone.

    Prints what to say: a published test card number, or made-up digits. Kept is what was said only if the recogniser
    hears exactly that, cut to its first and last digit; anything else is forgotten, and not told either.
    """
    if bool(wav) == bool(telephone) or bool(telephone) != bool(url):
        raise click.UsageError("give --from WAV, or --telephone NUMBER and --url URL")
    wanted = asked(name, Kind(kind), card, fixture_cards())
    if not replace and (there := [into / path for path in wanted.paths if (into / path).exists()]):
        raise InvalidInput(f"{there[0]} is there already; --replace puts the new recording in its place")
    pauses = ", with a pause after each" if wanted.kind is Kind.CLIPS else ""
    click.echo(f"Say{pauses}, and nothing else:  {wanted.grouped}")
    model = _model(locale)
    if wav:
        _from_file(model, wanted, wav, into)
    else:
        _by_telephone(model, wanted, str(telephone), str(url), port, locale, into)


def _from_file(model: DigitModel, wanted: Asked, wav: Path, into: Path) -> None:
    if not wav.exists() and sys.stdin.isatty():
        click.pause(f"Record it as {wav}, then press any key ...")
    try:
        recordings = heard(model, read_audio(wav), wanted)
    except AudioError as error:
        raise InvalidInput(str(error)) from None
    except NotAsAsked as error:
        raise click.ClickException(f"{error}; {wav} itself is yours to delete") from None
    _kept(recordings, into)


def _by_telephone(
    model: DigitModel, wanted: Asked, telephone: str, url: str, port: int, locale: str, into: Path
) -> None:
    from ivr.ops.recorder import Recorder, serving

    number = normalise_caller(telephone)
    if number is None:
        raise InvalidInput("--telephone is the number that you call from, as +1...")
    if not settings().auth_token.get_secret_value():
        raise InvalidInput("IVR_AUTH_TOKEN is not set: the carrier's requests cannot be told from others'")
    mine = settings().model_copy(update={"public_url": url})
    recorder = Recorder(mine, model, wanted, number, locale, lambda r: _kept(r, into))
    with serving(recorder, port) as at:
        click.echo(f"Call from {number}; the number's Voice URL is {url.rstrip('/')}/voice/answer, which leads to {at}")
        recorder.over.wait(PATIENCE_S)
    if not recorder.kept:
        raise click.ClickException(f"nothing was kept within {PATIENCE_S // 60} minutes")


def _kept(recordings: list[Recording], into: Path) -> None:
    for path in keep(into, recordings):
        click.echo(f"kept {path}")


def _model(locale: str) -> DigitModel:
    folder = settings().digit_model_zh_dir if locale == "zh" else settings().digit_model_dir
    if folder is None:
        raise InvalidInput(f"no digit model for {locale} is configured")
    try:
        return DigitModel(folder, locale)
    except DigitModelError as error:
        raise InvalidInput(str(error)) from None
