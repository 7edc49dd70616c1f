"""Calls that the service places itself, by Twilio's client. What is said in them comes over the usual webhooks."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import requests
from twilio.base.exceptions import TwilioException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from ivr.customers.rings import NotRung
from ivr.notifications.channels import TIMEOUT_S, quiet
from ivr.settings import Settings

RING_FOR_S = 30


class TwilioCaller:
    """Rings people; a machine that answers is hung up on (``AnsweredBy`` comes with the first webhook)."""

    def __init__(self, account_sid: str, auth_token: str, sender: str, public_url: str) -> None:
        http_client = TwilioHttpClient(timeout=TIMEOUT_S, logger=quiet)
        self._client, self._sender = Client(account_sid, auth_token, http_client=http_client), sender
        self._base = f"{public_url.rstrip('/')}/voice"

    def dial(self, number: str, page: str, about: Mapping[str, str]) -> None:
        """Ring a number; what is said comes from the webhook ``page``. Raises NotRung."""
        try:
            self._client.calls.create(
                to=number,
                from_=self._sender,
                url=f"{self._base}/{page}?{urlencode(about)}",
                fallback_url=f"{self._base}/fallback",
                status_callback=f"{self._base}/status",
                machine_detection="Enable",
                timeout=RING_FOR_S,
            )
        except TwilioException as error:
            code = getattr(error, "code", None) or getattr(error, "status", None)
            raise NotRung(f"twilio {code}") from None
        except (requests.RequestException, ValueError) as error:
            raise NotRung(type(error).__name__) from None


def connect(settings: Settings) -> TwilioCaller | None:
    """The caller, if it is configured. Raises ValueError, saying which setting is missing."""
    if not settings.calls_from:
        return None
    token = settings.auth_token.get_secret_value()
    if not (settings.account_sid and token and settings.public_url):
        raise ValueError("IVR_CALLS_FROM is set and IVR_ACCOUNT_SID, IVR_AUTH_TOKEN or IVR_PUBLIC_URL is not")
    return TwilioCaller(settings.account_sid, token, settings.calls_from, settings.public_url)
