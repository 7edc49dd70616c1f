"""Purchases: asked for by a merchant, confirmed by the customer on a hosted page, debited as a payment of hers."""
