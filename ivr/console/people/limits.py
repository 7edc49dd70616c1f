"""How often something may be tried, by address and by customer; counted in Redis."""

from __future__ import annotations

import hashlib
import ipaddress

from flask import request
from werkzeug.exceptions import TooManyRequests

from ivr.console.people.desk import desk

HOUR_S, DAY_S = 3600, 86_400
CODES_AN_ADDRESS_AN_HOUR, CODES_A_CUSTOMER_AN_HOUR, CODES_A_CUSTOMER_A_DAY = 20, 5, 12
GUESSES_AN_ADDRESS_AN_HOUR = 40
LINKS_AN_ADDRESS_AN_HOUR = 30
NAMED_A_DAY = 5  # supervisors, by one customer: it would tell which customers there are


def by_address(what: str, most: int) -> None:
    """Count one more from this address. Raises TooManyRequests."""
    _count(f"{what}:{address()}", most, HOUR_S)


def by_customer(what: str, customer: str, most: int, window_s: int) -> None:
    """Count one more for a customer, by anything that names her. Raises TooManyRequests."""
    _count(f"{what}:{window_s}:{customer}", most, window_s)


def _count(name: str, most: int, window_s: int) -> None:
    if not desk().services.calls.within(f"my:{name}", most, window_s):
        raise TooManyRequests


def address() -> str:
    """Whom an address stands for; one household has a whole /64 of IPv6. Kept as a hash: it is somebody's."""
    try:
        address = ipaddress.ip_address(request.remote_addr or "")
    except ValueError:
        return "unknown"
    network = ipaddress.ip_network((address, 64 if address.version == 6 else 32), strict=False)
    return hashlib.sha256(str(network).encode()).hexdigest()[:32]
