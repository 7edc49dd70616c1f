"""A sandbox bank: a process of its own, with its own books, that debits test customers with play money.

``python -m ivr.payments.sandbox --port 8401 --data DIR`` prints one line when it is ready. Port 0 picks
a free one. The key that its callers send as ``X-Api-Key`` is taken from ``IVR_BANK_API_KEY`` (``sandbox``).

Any Luhn-valid number of 12 to 19 digits is a card here; its first six digits decide what becomes of a debit:

====== =================================
400001 insufficient_funds
400002 expired
400003 blocked
400004 unavailable
400005 the customer must agree on a page
others authorised, as far as the balance goes
====== =================================

The number comes to ``POST /tokens`` and ``POST /accounts`` only, and is kept as a keyed hash.
"""
