"""What is measured of the ledger: ``python -m bench.ledger``.

``simulator`` runs the pure rules of every member under a seeded clock and network; ``liar`` is a member that breaks
them; ``processes`` starts real nodes.
"""
