"""``python -m ivr.payments.sandbox``: runs the sandbox bank until it is told to end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import click
from werkzeug.serving import WSGIRequestHandler, make_server

from ivr import log
from ivr.payments.sandbox.app import create_app
from ivr.payments.sandbox.books import Books
from ivr.payments.sandbox.confirming import Confirming
from ivr.webhooks.signature import is_secret


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """A bank's requests are in its books, not in its log."""


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8401, show_default=True, help="0 picks a free one.")
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder of its books."
)
@click.option("--confirm-at", metavar="URL", help="Where each debit must be confirmed, by IVR_BANK_NOTICE_SECRET.")
def main(host: str, port: int, data: Path, confirm_at: str | None) -> None:
    """A bank with play money, for tests and demonstrations."""
    log.configure("WARNING")
    books, confirming = Books(data), None
    if confirm_at:
        secret = os.environ.get("IVR_BANK_NOTICE_SECRET", "")
        if not is_secret(secret):
            raise click.UsageError("--confirm-at needs IVR_BANK_NOTICE_SECRET: whsec_ and base64 of 24 to 64 bytes")
        confirming = Confirming(books, confirm_at, secret)
    app = create_app(books, os.environ.get("IVR_BANK_API_KEY", "sandbox"), confirming)
    server = make_server(host, port, app, threaded=True, request_handler=_Quiet)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    print(f"sandbox bank ready on http://{host}:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
