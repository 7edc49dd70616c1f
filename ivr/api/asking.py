"""What an app is given to ask with: words in the customer's language, digits to be said, addresses to send them to."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from sqlalchemy.orm import Session

from ivr.call.prompts import spoken_amount, spoken_digits
from ivr.customers import apps
from ivr.customers.apps import App, AppBinding, AppCharge
from ivr.customers.merchants import Merchant
from ivr.customers.models import Customer
from ivr.keys import Keyring
from ivr.services import Services

_GROUP = 4  # digits said in one breath


@cache
def _texts() -> dict[str, dict[str, str]]:
    return tomllib.loads(Path(__file__).with_name("charges.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Asking:
    """One charge as it is being asked about: the try that an answer belongs to, and what is to be said."""

    charge_id: str
    step: int
    locale: str
    challenge: str = field(repr=False)
    prompt_file: str | None
    values: dict[str, str] = field(repr=False)

    def say(self, key: str) -> str:
        """The words for what came of an answer, or to ask with."""
        texts = _texts()[self.locale]
        plain = key in ("ask", "again") and not self.challenge
        return texts[f"{key}_yes" if plain else key].format(**self.values)


def asking(session: Session, services: Services, keyring: Keyring, charge: AppCharge) -> Asking:
    app, binding = session.get_one(App, charge.app_id), session.get_one(AppBinding, charge.binding_id)
    merchant = session.get_one(Merchant, app.merchant_id)
    customer = session.get_one(Customer, binding.customer_id)
    locale = customer.locale if services.digit_model(customer.locale) else "en"  # one in which she is heard
    challenge = apps.challenge(keyring, charge)
    groups = (challenge[at : at + _GROUP] for at in range(0, len(challenge), _GROUP))
    values = {
        "merchant": merchant.name,
        "app": app.name,
        "amount": spoken_amount(charge.amount_minor, charge.currency, locale),
        "digits": ", ".join(map(spoken_digits, groups)),
    }
    return Asking(charge.id, charge.tries, locale, challenge, app.prompt_file, values)


def addresses(services: Services, keyring: Keyring, asked: Asking, host_url: str) -> dict[str, str | None]:
    """Where the app sends what was said, and finds the merchant's recording. Each holds the charge's token."""
    base = (services.settings.public_url or host_url).rstrip("/")
    token = apps.charge_token(keyring, asked.charge_id)
    at = f"{base}/v1/app-charges/{asked.charge_id}"
    return {
        "upload_url": f"{at}/voice?token={token}",
        "stream_url": f"ws{at.removeprefix('http')}/stream?token={token}",
        "audio_url": f"{at}/prompt?token={token}" if asked.prompt_file else None,
    }
