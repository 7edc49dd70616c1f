"""Asking a customer whether an app may charge her: a one-time link to where she is known to be reached."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import func, select

from ivr.approval.appointments import settled_contacts
from ivr.customers import merchants
from ivr.customers.apps import DAY, PAGE, App, AppBinding
from ivr.customers.merchants import Merchant, MerchantCustomer
from ivr.customers.notices import notify_at
from ivr.jobs import Held

MOST_A_DAY = 3  # messages of one merchant to one customer


def ask(held: Held) -> None:
    """What a worker does with a request to bind. Where there is no such customer, nothing."""
    now = datetime.now(UTC)
    with held.transaction() as session:
        binding = session.get_one(AppBinding, held.payload["binding_id"])
        referred = session.get_one(MerchantCustomer, binding.merchant_customer_id)
        customer = merchants.resolve(session, referred)
        if customer is None or binding.unbound_at or now > binding.expires_at:
            return
        asked = (
            select(func.count())
            .select_from(AppBinding)
            .join(MerchantCustomer, MerchantCustomer.id == AppBinding.merchant_customer_id)
            .where(
                MerchantCustomer.merchant_id == referred.merchant_id,
                MerchantCustomer.customer_id == customer.id,
                AppBinding.requested_at > binding.requested_at - DAY,
                AppBinding.requested_at <= binding.requested_at,
            )
        )
        if int(session.scalar(asked) or 0) > MOST_A_DAY:
            return
        app = session.get_one(App, binding.app_id)
        names = {"app": app.name, "merchant": session.get_one(Merchant, app.merchant_id).name}
        for contact in settled_contacts(session, customer.id, now):
            notify_at(session, contact, "app.bind", {"page": [PAGE, binding.id], **names}, now)
