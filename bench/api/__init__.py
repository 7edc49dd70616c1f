"""What the merchants' API costs.

``python -m bench.api [--only PART ...] [--purchases 96] [--batch 2000]``

Parts: ``purchases`` (asked for, confirmed on the page, debited). Prints a table, then a line for each bar: ``PASS|MISS
name value target n``; exits 1 on a miss. What is measured depends on what else this machine does: the load is printed
beside. Needs the extra ``test`` (PostgreSQL from a package).
"""
