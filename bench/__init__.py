"""Benchmarks: each prints its figures and ends with a line a bar, ``PASS|MISS name value target n``."""
