"""Which bank is debited: the connector that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar
from urllib.parse import urlsplit

from ivr import metrics
from ivr.payments.bank import Bank
from ivr.settings import Settings

RETURN_PATH = "/bank/return"
"""Where a bank sends the customer back to when she has agreed on its page, or not."""
_OPERATIONS = [name for name, what in vars(Bank).items() if callable(what) and not name.startswith("_")]
"""What a bank is asked, and timed at."""
_P = ParamSpec("_P")
_R = TypeVar("_R")
_NEARBY = {"127.0.0.1", "::1", "localhost"}


class BankSettingsWrong(Exception):
    """The settings name no bank that could be reached. The message names the setting, never its value."""


def connect(settings: Settings) -> Bank:
    """The connector of ``settings.bank``. It connects lazily; share one a process. Raises BankSettingsWrong."""
    bank = {"sandbox": _sandbox, "http": _http, "stripe": _stripe}[settings.bank](settings)
    for operation in _OPERATIONS:
        setattr(bank, operation, _timed(operation, getattr(bank, operation)))
    return bank


def _timed(operation: str, ask: Callable[_P, _R]) -> Callable[_P, _R]:
    @wraps(ask)
    def timed(*given: _P.args, **named: _P.kwargs) -> _R:
        with metrics.BANK_S.labels(operation).time():
            return ask(*given, **named)

    return timed


def _sandbox(settings: Settings) -> Bank:
    from ivr.payments.sandbox_client import SandboxBank

    return SandboxBank(
        settings.bank_url, settings.bank_api_key.get_secret_value(), confirms=settings.bank_notice_secret is not None
    )


def _http(settings: Settings) -> Bank:
    from ivr.payments.http_bank import HttpBank

    missing = {"bank_url", "bank_api_key"} - settings.model_fields_set
    if missing or not settings.bank_api_key.get_secret_value():
        raise BankSettingsWrong("IVR_BANK=http needs IVR_BANK_URL and IVR_BANK_API_KEY")
    url = urlsplit(settings.bank_url)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in _NEARBY):
        raise BankSettingsWrong("IVR_BANK_URL must be an https:// URL, unless the bank runs on this machine")
    return HttpBank(
        settings.bank_url,
        settings.bank_api_key.get_secret_value(),
        test_only=settings.bank_test_only,
        confirms=settings.bank_notice_secret is not None,
    )


def _stripe(settings: Settings) -> Bank:
    from ivr.payments.stripe_bank import StripeBank  # takes a while to load, and only those who use it wait

    if settings.bank_notice_secret is not None:
        raise BankSettingsWrong("IVR_BANK_NOTICE_SECRET is for banks that confirm debits, and Stripe is none")
    key = settings.stripe_api_key.get_secret_value()
    if not key.startswith(("sk_live_", "rk_live_", "sk_test_", "rk_test_")):
        raise BankSettingsWrong(
            "IVR_BANK=stripe needs IVR_STRIPE_API_KEY, a secret or restricted key: sk_live_..., rk_live_..., "
            "or sk_test_... for play money"
        )
    secret = settings.stripe_webhook_secret.get_secret_value()
    if secret and not secret.startswith("whsec_"):
        raise BankSettingsWrong("IVR_STRIPE_WEBHOOK_SECRET is the endpoint's signing secret, whsec_...")
    return StripeBank(key, return_url=_return_url(settings), url=settings.stripe_url)


def _return_url(settings: Settings) -> str | None:
    return settings.public_url.rstrip("/") + RETURN_PATH if settings.public_url else None
