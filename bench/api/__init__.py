"""What the merchants' API costs.

``python -m bench.api [--only PART ...] [--purchases 96] [--batch 2000] [--charges 100]``

Parts: ``purchases`` (asked for, confirmed on the page, debited), ``charges`` (by voice in an app: from the last byte of
what was said to the answer). Prints a table of each, then a line for each bar: ``PASS|MISS name value target n``; exits
1 on a miss. What is measured depends on what else this machine does: the load is printed beside. Needs the extra
``test`` (PostgreSQL from a package).
"""
