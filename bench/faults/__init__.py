"""Payments under faults, with real processes: is one lost, is one debited twice?

``python -m bench.faults [--payments 1000] [--workers 2] [--only NAME] [--list]``

For each fault: a fresh PostgreSQL database and sandbox bank, N confirmed payments (every tenth with a card that the
bank declines) queued at once, and workers that debit them, each a process with the service's own worker in it. A
worker that dies is followed by another, as ``ivr serve`` does it. A merchant's HTTPS server, also a process, is told
by webhooks. When nothing waits any more, the database, the bank's books and what the merchant got are compared:

- lost: a payment that came to no end; that we call paid and the bank did not debit, or the reverse; for which the
  bank still holds money; or whose merchant was not told.
- twice: debited more than once, or for another amount; or two payments with one receipt number.
- unproven: what ``ivr payments verify`` finds: records, double-entry books and the bank's statement do not agree.

Where debits are confirmed, the bank debits only what our endpoint, a process too, confirmed; a debit without that
counts as unproven.

Leases last 3 s here instead of 30, so that the work of the killed is taken up soon. Where the bank answers late, our
time-out is 0.3 s instead of 5. Prints a table, writes ``bench/results/faults.json``, and exits 1 if a payment was
lost, debited twice or unproven. Needs the extra ``test`` (PostgreSQL from a package).
"""
