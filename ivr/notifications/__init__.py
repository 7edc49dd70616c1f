"""Telling customers, on every contact on file, what happened to their account."""
