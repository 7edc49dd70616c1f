"""The bench of payments runs, small, and says when its bar is missed."""

from __future__ import annotations

import pytest

from bench import payments

SMALL = ["--pending", "200", "2000", "--notices", "80", "--answers", "8", "--debits", "10"]


@pytest.mark.parametrize(("flat", "word", "status"), [(1000.0, "PASS", 0), (0.0, "MISS", 1)])
def test_it_prints_its_figures_and_judges_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], flat: float, word: str, status: int
) -> None:
    monkeypatch.setattr(payments, "FLAT", flat)
    assert payments.main(SMALL) == status
    printed = capsys.readouterr().out
    assert printed.splitlines()[-1].split()[:2] == [word, "p99_at_2000_pending_over_that_at_200"]
    for what in ("matched in Redis, 2,000 pending", "matched in PostgreSQL", "confirmed and recorded", "debits, SQL"):
        assert what in printed
