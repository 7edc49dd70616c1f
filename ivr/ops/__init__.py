"""Edges for operators: command line, simulated carrier, demo."""
