"""The ways to a contact: mail through an SMTP server, text messages through the carrier.

What a channel raises may be logged: it names the kind of failure, never an address, a text or a password.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from contextlib import closing, suppress
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, make_msgid, parseaddr
from typing import Protocol
from urllib.parse import unquote, urlsplit

import requests
from twilio.base.exceptions import TwilioException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from ivr.customers.models import ContactKind
from ivr.settings import Settings

TIMEOUT_S = 5.0  # of each step of a conversation with a server
LOOPBACK = ("localhost", "127.0.0.1", "::1")
BAD_NUMBERS = (21211, 21610, 21614)
"""Twilio's error codes for: no valid number; its owner replied STOP; no mobile number (twilio.com/docs/api/errors)."""

quiet = logging.getLogger(f"{__name__}.twilio")
quiet.setLevel(logging.WARNING)  # Twilio's client logs every request at INFO, with the account in the URL


class NotSent(Exception):
    """The message was not taken, as far as we know; it may be tried again."""


class Undeliverable(NotSent):
    """This address will never take this message."""


class Channel(Protocol):
    """One way to reach a contact."""

    def send(self, address: str, subject: str, text: str) -> None:
        """Returns when the server has taken the message, which is not yet a delivery. Raises NotSent's kinds."""


class SmtpChannel:
    """Mail through ``smtp://[user:password@]host[:port]`` (587, STARTTLS) or ``smtps://`` (465, TLS at once).

    User and password are percent-encoded. Certificates are verified. Unencrypted is only a relay on this
    machine that asks for no password. Raises ValueError when the URL is no such URL.
    """

    def __init__(self, url: str, sender: str) -> None:
        parts = urlsplit(url)
        try:
            self._port = parts.port or (465 if parts.scheme == "smtps" else 587)
        except ValueError:
            parts = urlsplit("")  # the error quotes a piece of the URL, perhaps of its password
        if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
            raise ValueError("the mail server is not of the form smtp://user:password@host:587")
        self._host, self._implicit_tls = parts.hostname, parts.scheme == "smtps"
        self._login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
        self._sender = sender

    def send(self, address: str, subject: str, text: str) -> None:
        message = self._message(address, subject, text)
        try:
            with closing(self._connect()) as server:
                if not self._implicit_tls and (self._login or self._host not in LOOPBACK):
                    server.starttls(context=ssl.create_default_context())
                if self._login:
                    server.login(*self._login)
                server.send_message(message, to_addrs=[address])
                # The mail is taken: what goes wrong in parting must not send it again.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
        except smtplib.SMTPRecipientsRefused as error:
            code, _ = error.recipients[address]
            raise (Undeliverable if code >= 500 else NotSent)(f"recipient refused {code}") from None
        except smtplib.SMTPDataError as error:
            raise (Undeliverable if error.smtp_code >= 500 else NotSent)(
                f"mail refused {error.smtp_code}"
            ) from None
        except (smtplib.SMTPException, OSError, UnicodeError) as error:
            raise NotSent(type(error).__name__) from None

    def _connect(self) -> smtplib.SMTP:
        if self._implicit_tls:
            context = ssl.create_default_context()
            return smtplib.SMTP_SSL(self._host, self._port, timeout=TIMEOUT_S, context=context)
        return smtplib.SMTP(self._host, self._port, timeout=TIMEOUT_S)

    def _message(self, address: str, subject: str, text: str) -> EmailMessage:
        message = EmailMessage()
        try:
            message["To"] = Address(addr_spec=address)  # exactly one address, whatever commas are in it
        except (ValueError, IndexError, HeaderParseError):
            raise Undeliverable("no address") from None
        message["From"], message["Subject"], message["Date"] = self._sender, subject, formatdate()
        message["Message-ID"] = make_msgid(domain=parseaddr(self._sender)[1].partition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence note answers it
        message.set_content(text)
        return message


class TwilioSmsChannel:
    """Text messages from the service's number, by Twilio's own client. The subject is not sent."""

    def __init__(self, account_sid: str, auth_token: str, sender: str) -> None:
        http_client = TwilioHttpClient(timeout=TIMEOUT_S, logger=quiet)
        self._client, self._sender = Client(account_sid, auth_token, http_client=http_client), sender

    def send(self, address: str, subject: str, text: str) -> None:
        try:
            self._client.messages.create(to=address, from_=self._sender, body=text)
        except TwilioException as error:
            code = getattr(error, "code", None) or getattr(error, "status", None)
            raise (Undeliverable if code in BAD_NUMBERS else NotSent)(f"twilio {code}") from None
        except (requests.RequestException, ValueError) as error:  # no answer, or one that is no JSON
            raise NotSent(type(error).__name__) from None


def connect(settings: Settings) -> dict[ContactKind, Channel]:
    """The channels that are configured; they connect when they send. Raises ValueError, saying which setting."""
    channels: dict[ContactKind, Channel] = {}
    if settings.smtp_url:
        if not settings.smtp_from:
            raise ValueError("IVR_SMTP_URL is set and IVR_SMTP_FROM is not: whom shall the mail be from?")
        channels[ContactKind.EMAIL] = SmtpChannel(settings.smtp_url.get_secret_value(), settings.smtp_from)
    if settings.sms_from:
        token = settings.auth_token.get_secret_value()
        if not (settings.account_sid and token):
            raise ValueError("IVR_SMS_FROM is set and IVR_ACCOUNT_SID or IVR_AUTH_TOKEN is not")
        channels[ContactKind.SMS] = TwilioSmsChannel(settings.account_sid, token, settings.sms_from)
    return channels
