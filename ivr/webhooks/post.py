"""One POST to a merchant's server, and what came of it."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from http.client import HTTPException
from urllib.parse import urljoin

from urllib3.connection import HTTPSConnection
from urllib3.exceptions import HTTPError
from urllib3.util import Url

from ivr.webhooks.address import AddressRefused, BadUrl, check_url, origin, resolve

STEP_TIMEOUT_S = 5.0
"""To connect; for the whole TLS handshake; and between two bytes."""
LONGEST_S = 10.0
"""The whole exchange, redirects too, however slowly its bytes come; only the last connection may add its two steps.
Well within a worker's lease, so that no other sends the same message meanwhile."""
MOST_REDIRECTS = 3
_REDIRECTS = (307, 308)  # those that keep the method and the body


class NotDelivered(Exception):
    """The merchant's server did not take the message. The text says how, and names neither URL nor body."""


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    origins: Collection[tuple[str, int]],
    allow_private: bool = False,
) -> None:
    """Send ``body``; returns when a server of ``origins`` (host, port) answers 2xx. Raises NotDelivered.

    Every hop is checked, redirects too: https, a registered origin, public addresses, and the connection goes to
    an address that was checked. No proxy is used.
    """
    deadline = time.monotonic() + LONGEST_S
    for _ in range(1 + MOST_REDIRECTS):
        try:
            parts = check_url(url)
        except BadUrl:
            raise NotDelivered("BadUrl") from None
        if origin(parts) not in origins:
            raise NotDelivered("origin not registered")
        status, location = _ask(parts, body, headers, allow_private, deadline - time.monotonic())
        if 200 <= status < 300:
            return
        if status not in _REDIRECTS or not location:
            raise NotDelivered(f"status {status}")
        try:
            url = urljoin(url, location)
        except ValueError:
            raise NotDelivered("BadUrl") from None
    raise NotDelivered("too many redirects")


def _ask(
    parts: Url, body: bytes, headers: Mapping[str, str], allow_private: bool, within_s: float
) -> tuple[int, str | None]:
    """Status and Location of the answer; its body is not read."""
    connection = _connection(parts, allow_private)
    too_slow = threading.Event()
    clock = threading.Timer(max(0.0, within_s), _cut, [connection, too_slow])
    clock.daemon = True
    clock.start()
    try:
        sent = {"Host": parts.netloc or "", "Content-Type": "application/json", "User-Agent": "pay-by-voice", **headers}
        connection.connect()
        if too_slow.is_set():  # the cut came too early: there was nothing to cut yet
            raise NotDelivered("too slow")
        connection.request("POST", parts.request_uri, body, sent, preload_content=False)
        answer = connection.getresponse()
        if too_slow.is_set():  # cut off: what looks like the end of the headers may be none
            raise NotDelivered("too slow")
        return answer.status, answer.headers.get("Location")
    except (OSError, HTTPException, HTTPError, ValueError) as error:
        raise NotDelivered(type(error).__name__) from None
    finally:
        clock.cancel()
        connection.close()


def _connection(parts: Url, allow_private: bool) -> HTTPSConnection:
    """To the first address of the host, not connected yet. The resolver sorts those out of reach to the end."""
    host, port = origin(parts)
    try:
        addresses = resolve(parts, allow_private=allow_private)
    except AddressRefused as error:
        raise NotDelivered(str(error)) from None
    return HTTPSConnection(
        addresses[0],
        port,
        timeout=STEP_TIMEOUT_S,
        ssl_context=ssl.create_default_context(),
        server_hostname=host.strip("[]"),  # the certificate must be the name's, not the address's
    )


def _cut(connection: HTTPSConnection, too_slow: threading.Event) -> None:
    """End a connection that another thread is waiting on, and tell it why."""
    too_slow.set()
    if connection.sock is not None:
        with suppress(OSError):
            socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)
