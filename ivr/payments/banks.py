"""Which bank is debited: the connector that the settings name."""

from __future__ import annotations

from ivr.payments.bank import Bank
from ivr.payments.sandbox_client import SandboxBank
from ivr.settings import Settings


def connect(settings: Settings) -> Bank:
    """The connector of ``settings.bank``. It connects lazily; share one a process."""
    confirms = settings.bank_notice_secret is not None
    return SandboxBank(settings.bank_url, settings.bank_api_key.get_secret_value(), confirms=confirms)
