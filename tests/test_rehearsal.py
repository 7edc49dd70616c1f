"""The README's rehearsal of a deployment, run as it stands there: nginx, TLS, two web processes, PostgreSQL, Redis."""

from __future__ import annotations

from pathlib import Path

import rehearsal_support as rehearsal


def test_a_call_pays_through_the_proxy(short_folder: Path) -> None:
    clone = rehearsal.clone(short_folder)
    run, end = rehearsal.commands()
    script = f"end() {{ set +e; mkdir ../logs; cp *.log ../logs\n{end}}}\ntrap end EXIT\n{run}"
    status, said = rehearsal.bash(script, clone, rehearsal.ports())
    logs = {log.name: log.read_text() for log in (clone / "build" / "logs").glob("*.log")}
    assert status == 0, said + "".join(f"\n--- {name}\n{log[-2000:]}" for name, log in logs.items())
    assert "2 of 2 calls as they should be" in said
    assert "records, books and bank agree" in said
    assert "POST /voice/answer 200" in logs["pay-by-voice.log"]
    assert "GET /voice/stream 101" in logs["pay-by-voice.log"], "the websocket went through the proxy"
    assert not (clone / "build" / "rehearsal").exists()
