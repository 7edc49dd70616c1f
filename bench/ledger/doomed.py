"""``python -m bench.ledger.doomed``: ``ivr ledger node``, on a network that the bench cuts, and killed when it says so.

It reads ``faults.json`` beside the members' folders: ``cut`` names members that do not hear the others, nor are heard
by them; with ``die`` the next member that proposes a block is killed once a single other member has it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from ivr.ledger.transport import HttpTransport, NotDelivered
from ivr.ledger.wire import Member
from ivr.ops.cli import main


def install(faults: Path, me: str) -> None:
    """Put the faults between this node and its network."""
    real = HttpTransport.send

    async def send(self: HttpTransport, to: Member, sealed: bytes) -> bytes:
        asked = json.loads(faults.read_text()) if faults.exists() else {}
        cut = asked.get("cut", ())
        if (me in cut) != (to.name in cut):
            raise NotDelivered("cut off")
        given = await real(self, to, sealed)
        if asked.get("die") and b'{"type":"proposal"' in sealed:
            faults.write_text(json.dumps(asked | {"die": False, "died": me}))
            os.kill(os.getpid(), signal.SIGKILL)
        return given

    HttpTransport.send = send  # type: ignore[method-assign]


if __name__ == "__main__":
    folder = Path(sys.argv[sys.argv.index("--data") + 1])
    install(folder.parent / "faults.json", folder.name)
    main(["ledger", "node", *sys.argv[1:]], prog_name="ivr")
