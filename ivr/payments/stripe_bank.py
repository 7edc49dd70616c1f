"""The connector to Stripe: PaymentIntents with manual capture, on cards that Stripe keeps for its customers.

Built on Stripe's own package rather than on plain HTTP: it brings the pinned API version, typed errors, paging and
the check of webhook signatures, which would be more of our own code than this whole file. Its retries are switched
off, for the worker repeats, with keys that it has stored before.

A token is ``cus_.../pm_...``: the payment method and the customer it belongs to, for Stripe wants both. Card numbers
never pass from here to Stripe, and neither does a security code.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import stripe
from babel.numbers import get_currency_precision

from ivr.payments.bank import (
    Authorised,
    BankError,
    BankRejected,
    BankUnavailable,
    Capabilities,
    Captured,
    Channel,
    CurrencyNotSupported,
    Declined,
    DeclineReason,
    InvalidCard,
    KeyReused,
    Linked,
    Refunded,
    StatementLine,
    TelephoneOrdersNotEnabled,
    Token,
    Voided,
)
from ivr.payments.stripe_declines import reason

TIMEOUT_S = (2.0, 10.0)
"""To connect, and between two bytes of the answer. Two requests fit into a worker's lease."""
LISTED_FOR = timedelta(hours=24)
"""How long after a payment's start its intent may have been created: longer than its key is used."""
HELD_FOR = timedelta(days=7)
"""When Stripe cancels at the latest what nobody captured; some issuers let go earlier, and the capture then tells."""
_CLOCK_SKEW = timedelta(minutes=5)
_PAGE = 100  # the most that Stripe lists at once

# How many decimals Stripe's smallest units have; two, where nothing is said.
_WHOLE = "BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF VND VUV XAF XOF XPF"
_DECIMALS = {
    **dict.fromkeys(_WHOLE.split(), 0),
    **dict.fromkeys(["BHD", "JOD", "KWD", "OMR", "TND"], 3),
}

logging.getLogger("stripe").setLevel(logging.WARNING)  # its INFO lines repeat every request
stripe.enable_telemetry = False

Outcome = Authorised | Linked | Declined | Captured | Voided


class StripeBank:
    """A Bank at Stripe. Share one a process. ``url`` is Stripe's own unless tests name another."""

    name = "stripe"
    capabilities = Capabilities(
        debit_confirmation=False,  # Stripe asks nobody before it debits: our confirmation is the capture
        look_up_by_key=False,
        partial_capture=True,
        telephone_order=True,
    )

    def __init__(self, api_key: str, *, return_url: str | None, url: str | None = None) -> None:
        self.test_only = api_key.startswith(("sk_test_", "rk_test_"))
        self._return_url = return_url
        self._api = stripe.StripeClient(
            api_key,
            base_addresses={"api": url} if url else {},
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        ).v1

    def tokenise(self, pan: str, exp_year: int, exp_month: int) -> Token:
        # Only accounts that Stripe has examined for it may send numbers, and then the operator's machine handles them.
        raise InvalidCard("Stripe takes the number on its own pages only: save the card there and give its pm_... here")

    def card(self, token: str) -> Token:
        method_id = token.rpartition("/")[2]
        try:
            method = _ask(lambda: self._api.payment_methods.retrieve(method_id))
        except BankRejected as error:
            if not str(error).startswith("404"):
                raise
            raise InvalidCard("Stripe knows no such payment method") from None
        if method["type"] != "card":
            raise InvalidCard("this payment method is no card")
        if not method["customer"]:
            raise InvalidCard("this payment method is saved for no customer at Stripe, and could be used once only")
        return Token(f"{method['customer']}/{method_id}", method["card"]["brand"], method["card"]["last4"])

    def authorise(
        self,
        token: str,
        amount_minor: int,
        currency: str,
        *,
        key: str,
        reference: str,
        merchant: str = "",
        channel: Channel = "telephone",
    ) -> Authorised | Linked | Declined:
        if get_currency_precision(currency) != _DECIMALS.get(currency, 2):
            raise CurrencyNotSupported(f"Stripe counts {currency} in other minor units than we do")
        customer, _, method = token.rpartition("/")
        wanted: dict[str, Any] = {
            "amount": amount_minor,
            "currency": currency.lower(),
            "customer": customer,
            "payment_method": method,
            "payment_method_types": ["card"],
            "capture_method": "manual",
            "confirm": True,
            "metadata": {"payment": reference, "merchant": merchant},
            # The customer is there and has just agreed: not ``off_session``, which says that she is away.
            **self._return(),
        }
        if channel == "telephone":
            wanted["payment_method_options"] = {"card": {"moto": True}}
        try:
            found = _outcome(_ask(lambda: self._api.payment_intents.create(wanted, {"idempotency_key": key})))  # type: ignore[arg-type]
        except stripe.CardError as error:
            found = self._declined(error, method, key)
        except AmountRefused:
            return Declined(DeclineReason.OTHER)
        if isinstance(found, Linked) and not found.url:  # nobody would ever see the bank's page
            self.void(found.reference, key=key)
            return Declined(DeclineReason.AUTHENTICATION_REQUIRED)
        assert isinstance(found, Authorised | Linked | Declined), "the first answer is no capture"
        return found

    def status(self, bank_reference: str) -> Outcome:
        return _outcome(_ask(lambda: self._api.payment_intents.retrieve(bank_reference)))

    def capture(self, bank_reference: str, amount_minor: int | None = None, *, key: str) -> Captured | Voided:
        wanted: Any = {} if amount_minor is None else {"amount_to_capture": amount_minor}
        return self._resolve(
            bank_reference, lambda: self._api.payment_intents.capture(bank_reference, wanted, {"idempotency_key": key})
        )

    def void(self, bank_reference: str, *, key: str) -> Voided | Captured:
        # Without the key, under which Stripe would repeat a failure of its own for a day: an intent is cancelled once.
        return self._resolve(bank_reference, lambda: self._api.payment_intents.cancel(bank_reference))

    def refund(self, bank_reference: str, amount_minor: int, *, key: str) -> Refunded | Declined:
        wanted: Any = {"payment_intent": bank_reference, "amount": amount_minor, "metadata": {"key": key}}
        try:
            refund = _ask(lambda: self._api.refunds.create(wanted, {"idempotency_key": key}))
        except BankUnavailable:
            found = self._refund_under(bank_reference, key)
            if found is None:
                raise
            refund = found
        except (AmountRefused, stripe.CardError):
            return Declined(DeclineReason.OTHER)
        return Declined(DeclineReason.OTHER) if refund["status"] in ("failed", "canceled") else Refunded()

    def statement(self) -> list[StatementLine]:
        # By the balance, not by intents: a refund that only released a hold moved no money and is not in it.
        wanted: Any = {"limit": _PAGE, "expand": ["data.source.payment_intent"]}
        lines = []
        for moved in _pages(lambda: self._api.balance_transactions.list(wanted)):
            source = moved["source"] if isinstance(moved["source"], dict) else {}
            intent = source.get("payment_intent")
            if moved["type"] not in ("charge", "refund", "payment", "payment_refund") or not isinstance(intent, dict):
                continue
            reference = intent["metadata"].get("payment")
            kind: Literal["debit", "refund"] = "debit" if source["object"] == "charge" else "refund"
            amount = source["amount_captured"] if kind == "debit" else source["amount"]
            if reference:
                lines.append(StatementLine(reference, kind, amount, source["currency"].upper()))
        return lines

    def look_up(self, key: str) -> Outcome | None:
        raise NotImplementedError("Stripe has no look-up by key: see capabilities")

    def find(self, reference: str, since: datetime) -> Outcome | None:
        created = {
            "gte": int((since - _CLOCK_SKEW).timestamp()),
            "lte": int((since + LISTED_FOR + _CLOCK_SKEW).timestamp()),
        }
        wanted: Any = {"created": created, "limit": _PAGE}
        for intent in _pages(lambda: self._api.payment_intents.list(wanted)):
            if intent["metadata"].get("payment") == reference:
                return _outcome(intent)
        return None

    def _return(self) -> dict[str, str]:
        return {"return_url": self._return_url} if self._return_url else {}

    def _declined(self, error: stripe.CardError, method: str, key: str) -> Outcome:
        """What a declined card comes to: a link, if the issuer only wants to hear it from the customer herself."""
        body = _error_of(error)
        why = _why(error)
        intent_id = (body.get("payment_intent") or {}).get("id")
        if why is not DeclineReason.AUTHENTICATION_REQUIRED or not intent_id or not self._return_url:
            return Declined(why)
        again: Any = {"payment_method": method, **self._return()}
        options: Any = {"idempotency_key": f"{key}-link"}
        try:
            return _outcome(_ask(lambda: self._api.payment_intents.confirm(intent_id, again, options)))
        except stripe.CardError as second:
            return Declined(_why(second))

    def _resolve(self, reference: str, request: Callable[[], stripe.StripeObject]) -> Captured | Voided:
        try:
            found = _outcome(_ask(request))
        except KeyReused:
            raise
        except (BankError, stripe.CardError) as error:
            # It was resolved before, or our key brings back a failure of Stripe's: how the intent stands decides.
            found = self.status(reference)
            if not isinstance(found, Captured | Voided):
                refused = error if isinstance(error, BankError) else BankRejected("the issuer refused the capture")
                raise refused from None
        if not isinstance(found, Captured | Voided):
            raise BankUnavailable(f"Stripe has not resolved it yet: {type(found).__name__}")
        return found

    def _refund_under(self, reference: str, key: str) -> dict[str, Any] | None:
        """The refund that was made although Stripe failed to say so."""
        made = _pages(lambda: self._api.refunds.list({"payment_intent": reference, "limit": _PAGE}))
        return next((refund for refund in made if (refund.get("metadata") or {}).get("key") == key), None)


class AmountRefused(BankRejected):
    """Stripe will not move this amount: it is below or above its limits, or more than is left to give back."""


def _outcome(intent: Mapping[str, Any]) -> Outcome:
    """How a PaymentIntent stands. Raises BankUnavailable when Stripe does not know yet."""
    match intent["status"]:
        case "requires_capture":
            return Authorised(intent["id"], datetime.fromtimestamp(intent["created"], UTC) + HELD_FOR)
        case "succeeded":
            return Captured()
        case "canceled":
            return Voided()
        case "requires_action":
            redirect = (intent.get("next_action") or {}).get("redirect_to_url") or {}
            return Linked(intent["id"], redirect.get("url") or "")
        case "requires_payment_method":
            error = intent.get("last_payment_error") or {}
            return Declined(reason(error.get("decline_code") or error.get("code")))
        case status:
            raise BankUnavailable(f"the intent is {status}")


def _error_of(error: stripe.StripeError) -> dict[str, Any]:
    body: Any = error.json_body or {}
    return dict(body.get("error") or {})


def _why(error: stripe.CardError) -> DeclineReason:
    return reason(_error_of(error).get("decline_code") or error.code)


def _ask(request: Callable[[], stripe.StripeObject]) -> dict[str, Any]:
    """The answer as plain data. Raises the errors of bank.py, and stripe.CardError where the card was declined."""
    try:
        return dict(request().to_dict())
    except stripe.CardError:
        raise
    except stripe.StripeError as error:
        raise _typed(error) from None


def _pages(request: Callable[[], stripe.ListObject[Any]]) -> list[dict[str, Any]]:
    try:
        return [dict(item.to_dict()) for item in request().auto_paging_iter()]
    except stripe.StripeError as error:
        raise _typed(error) from None


def _typed(error: stripe.StripeError) -> BankError:
    """Ours for one of theirs, by type and code only: their messages may quote what was sent."""
    said = f"{error.http_status} {error.code or type(error).__name__}"
    param = getattr(error, "param", None) or ""
    if isinstance(error, stripe.IdempotencyError):
        return KeyReused("this idempotency key came with another request before")
    if "moto" in param:
        return TelephoneOrdersNotEnabled("Stripe has not enabled telephone orders (MOTO) for this account")
    if error.code == "charge_already_refunded" or (isinstance(error, stripe.InvalidRequestError) and param == "amount"):
        return AmountRefused(said)
    rejected = stripe.InvalidRequestError | stripe.AuthenticationError | stripe.PermissionError
    return BankRejected(said) if isinstance(error, rejected) else BankUnavailable(said)
