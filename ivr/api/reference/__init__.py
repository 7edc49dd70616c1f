"""A merchant's app at its smallest: the page, and the merchant's own server, which alone has the key.

``ivr app demo`` serves it. The browser gets what it needs to ask with and to send what was said, and nothing else.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import requests
from flask import Flask, Response, jsonify, request, send_from_directory

HERE = Path(__file__).parent
TIMEOUT_S = 10
FOR_THE_BROWSER = ("id", "status", "prompt", "challenge", "stream_url", "page_url")


def create_app(url: str, key: str, app_id: str, customer: str) -> Flask:
    """``url``: of the service; ``key``: of the merchant, with the scopes apps:write and purchases:write."""
    app = Flask(__name__, static_folder=str(HERE / "static"), static_url_path="/static")

    def ask(path: str, **body: Any) -> tuple[Response, int]:
        given = requests.post(
            f"{url.rstrip('/')}/v1{path}",
            json={"customer": customer, "currency": "USD", **body},
            headers={"Authorization": f"Bearer {key}", "Idempotency-Key": secrets.token_hex(16)},
            timeout=TIMEOUT_S,
        )
        document = given.json()
        if not given.ok:
            return jsonify(error=document.get("detail", "")), given.status_code
        return jsonify({name: document[name] for name in FOR_THE_BROWSER if name in document}), given.status_code

    @app.get("/")
    def page() -> Response:
        return send_from_directory(HERE / "static", "index.html")

    @app.post("/charge")
    def charge() -> tuple[Response, int]:
        return ask("/app-charges", app=app_id, amount_minor=int(request.form["amount_minor"]))

    @app.post("/purchase")
    def purchase() -> tuple[Response, int]:
        return ask("/purchases", product_kind="book", amount_minor=int(request.form["amount_minor"]))

    return app
