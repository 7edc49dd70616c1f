"""Customers, their caller ids, authorised cards, bills, PINs, consents and failure budgets."""
