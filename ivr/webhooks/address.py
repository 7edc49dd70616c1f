"""Where a webhook may go: https only, to public addresses only, and to the very address that was checked.

A merchant chooses the name in the URL and what it resolves to, so both are treated as an attacker's: whoever
could point us at an address inside our network would have us speak there in our name.
"""

from __future__ import annotations

import socket
from ipaddress import IPv4Address, IPv6Network, ip_address

from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from ivr.customers.errors import InvalidInput

LONGEST_URL = 1000
_UNICAST = IPv6Network("2000::/3")  # the only part of IPv6 that is given out for use everywhere
_NAT64 = IPv6Network("64:ff9b::/96")


class BadUrl(InvalidInput):
    """No webhook can be sent to this URL. The message does not repeat it."""


class AddressRefused(Exception):
    """The host resolves to an address that is not public, or not at all."""


def check_url(url: str) -> Url:
    """The URL's parts. Raises BadUrl unless it is https, with a host, without user, password or fragment."""
    try:
        parts = parse_url(url)
    except LocationParseError:
        raise BadUrl("the webhook's URL cannot be read") from None
    if parts.scheme != "https" or not parts.host:
        raise BadUrl("the webhook's URL must be of the form https://host/path")
    if parts.auth is not None or parts.fragment is not None:
        raise BadUrl("the webhook's URL must have no user, password or fragment")
    if len(parts.url) > LONGEST_URL:
        raise BadUrl(f"the webhook's URL is longer than {LONGEST_URL} characters")
    return parts


def origin(parts: Url) -> tuple[str, int]:
    """Host and port of an https URL: what is registered, and what a redirect must not leave."""
    return parts.host or "", parts.port or 443


def resolve(parts: Url, *, allow_private: bool = False) -> list[str]:
    """The addresses of the URL's host, to connect to without resolving again.

    Raises AddressRefused when there is none, or when one of them is not public: all must be, lest an answer
    mixed of both is tried until the wrong one is taken.
    """
    host, port = origin(parts)
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    if not found:
        raise AddressRefused("name not resolved")
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not allow_private and not all(is_public(address) for address in addresses):
        raise AddressRefused("address not public")
    return addresses


def is_public(address: str) -> bool:
    """Whether an IP address, and every IPv4 address that it carries inside, is reachable by everybody."""
    found = ip_address(address)
    if isinstance(found, IPv4Address):
        return found.is_global and not found.is_multicast
    if found.scope_id:
        return False
    inside = [found.ipv4_mapped, found.sixtofour, *(found.teredo or ())]
    if found in _NAT64:
        inside.append(IPv4Address(found.packed[-4:]))
    if not all(is_public(str(v4)) for v4 in inside if v4):
        return False
    return found.ipv4_mapped is not None or found in _NAT64 or (found in _UNICAST and found.is_global)
