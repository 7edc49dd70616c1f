"""Whether a call may be played into a service: never where it could be about a customer of a live bank.

The service is asked, as it alone knows its customers; the question is signed as a webhook is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

import requests
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from ivr.ops.simcarrier.line import authorities, is_loopback
from ivr.ops.simcarrier.scenario import Scenario, ScenarioError

PATH = "/voice/rehearsal"
TIMEOUT_S = 15
_CUSTOMER_NUMBER = re.compile(r"(?<!\d)\d{7}(?!\d)")


class LiveCustomer(ScenarioError):
    """The call could be about somebody who is no test customer."""


def check(scenario: Scenario, values: Mapping[str, str], base_url: str, auth_token: str, *, deployed: bool) -> bool:
    """Ask the service about everybody whom the call could be about; whether its bank's money is play money.

    Raises LiveCustomer when somebody among them is no test customer, and the service is ``deployed`` or debits real
    money: a call that fails would count against her, and one that does not would debit her. Raises ScenarioError when
    the service cannot be asked: no call is placed then either.
    """
    base_url = base_url.rstrip("/")
    url, form = base_url + PATH, {"CallSid": "CA" + secrets.token_hex(16), **_whom(scenario, values)}
    signature = RequestValidator(auth_token).compute_signature(url, form)
    try:
        with requests.Session() as session:
            session.trust_env = not is_loopback(url)
            session.verify = authorities()
            answer = session.post(
                url, form, headers={"X-Twilio-Signature": signature}, timeout=TIMEOUT_S, allow_redirects=False
            )
            answer.raise_for_status()
            told = answer.json()
            test_customers, test_bank = told["test_customers"] is True, told["test_bank"] is True
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise ScenarioError(
            f"{base_url} does not say whether its customers are for tests ({type(error).__name__} at {PATH}), "
            "so no call is placed: is the service of this release?"
        ) from None
    if not test_customers and (deployed or not test_bank):
        raise LiveCustomer(
            f"{scenario.name}: the call could be about a customer who was not added with `ivr customer add --test`"
            f"{'' if test_bank else ', at a bank with real money'}; no call was placed"
        )
    return test_bank


def _whom(scenario: Scenario, values: Mapping[str, str]) -> dict[str, str]:
    """Everybody that a scenario names: who calls, customer numbers keyed, what a rung customer is rung about."""
    keyed = " ".join(_known(turn.keys or "", values) for turn in (*scenario.turns, *scenario.whenever))
    numbers = _CUSTOMER_NUMBER.findall(keyed) + ([scenario.end.customer] if scenario.end.customer else [])
    about = parse_qs(urlsplit(_known(scenario.caller.rung or "", values)).query)
    page = {name.title(): given[0] for name, given in about.items() if name in ("bill", "request", "approver")}
    return {"From": scenario.caller.from_, "Customers": " ".join(numbers), **page}


def _known(template: str, values: Mapping[str, str]) -> str:
    """``template`` with the values that are known before the call."""
    return re.sub(r"\{([\w.-]+)\}", lambda match: values.get(match[1], match[0]), template)
