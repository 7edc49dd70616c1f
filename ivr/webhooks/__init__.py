"""Telling merchants' servers what became of a payment or a purchase: signed, in order, until they take it.

The messages follow the Standard Webhooks specification 1.0 (standardwebhooks.com), for which merchants find a
library in their language: the headers ``webhook-id``, ``webhook-timestamp``, ``webhook-signature``, and a JSON body

    {"type": "payment.paid", "timestamp": "2026-11-24T10:00:00+00:00", "data": {...}}

``webhook-id`` stays the same however often a message is sent: a merchant who has seen it ignores it.
"""
