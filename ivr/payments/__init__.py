"""The payment: its states, the worker that debits, the banks."""
