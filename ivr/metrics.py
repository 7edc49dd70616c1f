"""What is counted and timed, for Prometheus. Labels are names of ours: never a number, an id or anything said."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_QUICK_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2, 5)
_SLOW_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

CALLS = Counter("ivr_calls", "Calls that began.", ["kind"])
STEPS = Counter("ivr_steps", "Steps of calls, by the state that they came to.", ["state"])
TURNS = Counter("ivr_turns", "Listening turns, by what they came to.", ["state", "event"])
TURN_S = Histogram("ivr_turn_seconds", "From the end of a listening turn to its outcome.", ["state"], buckets=_QUICK_S)
LISTENING = Gauge("ivr_listening", "Turns being listened to now.", multiprocess_mode="livesum")
EMBEDDING = Gauge("ivr_embedding", "Recordings being embedded now, or waiting for it.", multiprocess_mode="livesum")
REQUEST_S = Histogram("ivr_request_seconds", "HTTP requests.", ["endpoint", "status"], buckets=_QUICK_S)
JOBS = Counter("ivr_jobs", "Jobs that a worker ran.", ["kind", "outcome"])
JOB_S = Histogram("ivr_job_seconds", "One run of a job, the bank's or the mail server's time in it.", ["kind"],
                  buckets=_SLOW_S)  # fmt: skip
BANK_S = Histogram("ivr_bank_seconds", "What the bank took to answer, or not to.", ["operation"], buckets=_SLOW_S)
