"""Stripe's decline codes as the few reasons that a caller can act on. Pure.

What points to fraud or to the issuer's suspicion (lost, stolen, fraudulent, restricted ...) is OTHER on purpose:
whoever holds the telephone is not told that the card was reported. So is every code that Stripe adds later.
"""

from __future__ import annotations

from ivr.payments.bank import DeclineReason

_CODES = {
    DeclineReason.INSUFFICIENT_FUNDS: (
        "card_velocity_exceeded",
        "insufficient_funds",
        "withdrawal_count_limit_exceeded",
    ),
    DeclineReason.EXPIRED: (
        "expired_card",
        "invalid_expiry_month",
        "invalid_expiry_year",
        "new_account_information_available",
    ),
    DeclineReason.UNAVAILABLE: (
        "approve_with_id",
        "issuer_not_available",
        "processing_error",
        "reenter_transaction",
        "try_again_later",
    ),
    DeclineReason.AUTHENTICATION_REQUIRED: (
        "authentication_not_handled",
        "authentication_required",
        "mobile_device_authentication_required",
        "payment_intent_authentication_failure",
    ),
    DeclineReason.OTHER: (
        "call_issuer",
        "card_declined",
        "card_not_supported",
        "currency_not_supported",
        "do_not_honor",
        "do_not_try_again",
        "duplicate_transaction",
        "fraudulent",
        "generic_decline",
        "incorrect_address",
        "incorrect_cvc",
        "incorrect_number",
        "incorrect_pin",
        "incorrect_zip",
        "invalid_account",
        "invalid_amount",
        "invalid_cvc",
        "invalid_number",
        "invalid_pin",
        "lost_card",
        "merchant_blacklist",
        "no_action_taken",
        "not_permitted",
        "offline_pin_required",
        "online_or_offline_pin_required",
        "pickup_card",
        "pin_try_exceeded",
        "restricted_card",
        "revocation_of_all_authorizations",
        "revocation_of_authorization",
        "security_violation",
        "service_not_allowed",
        "stolen_card",
        "stop_payment_order",
        "testmode_decline",
        "transaction_not_allowed",
    ),
}
REASONS: dict[str, DeclineReason] = {code: reason for reason, codes in _CODES.items() for code in codes}


def reason(decline_code: str | None) -> DeclineReason:
    """The reason of a code; OTHER for one that is not known here."""
    return REASONS.get(decline_code or "", DeclineReason.OTHER)
