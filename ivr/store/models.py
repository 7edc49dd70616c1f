"""Every table of the service: importing this module completes ``metadata``."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from ivr.store.db import Base

for _module in (
    "ivr.customers.models",
    "ivr.customers.merchants",
    "ivr.customers.apps",
    "ivr.customers.accounts",
    "ivr.customers.card_requests",
    "ivr.payments.models",
    "ivr.approval.models",
    "ivr.call.models",
    "ivr.webhooks.models",
    "ivr.ledger.models",
    "ivr.api.models",
    "ivr.purchases.models",
    "ivr.jobs",
):
    if find_spec(_module):
        import_module(_module)

metadata = Base.metadata
