"""A merchant's app at its smallest: the page, and the merchant's own server, which alone has the key.

``ivr app demo`` serves it. The browser gets what it needs to ask with and to send what was said, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Flask, Response, jsonify, request, send_from_directory
from pydantic import BaseModel, ValidationError

from ivr.api.client import Client, NewAppCharge, NewPurchase, Problem, Unanswered

HERE = Path(__file__).parent
TIMEOUT_S, ATTEMPTS = 10.0, 2  # somebody waits
FOR_THE_BROWSER = {"id", "status", "prompt", "challenge", "stream_url", "page_url"}


def create_app(url: str, key: str, app_id: str, customer: str) -> Flask:
    """``url``: of the service; ``key``: of the merchant, with the scopes apps:write and purchases:write."""
    app = Flask(__name__, static_folder=str(HERE / "static"), static_url_path="/static")

    def answer(ask: Callable[[Client], BaseModel]) -> tuple[Response, int]:
        try:
            given = ask(Client(url, key, timeout_s=TIMEOUT_S, attempts=ATTEMPTS))
        except Problem as problem:
            return jsonify(error=problem.detail), problem.status
        except ValidationError:
            return jsonify(error="This amount is none."), 422
        except Unanswered:
            return jsonify(error="The service does not answer. Nothing was paid."), 503
        return jsonify(given.model_dump(mode="json", include=FOR_THE_BROWSER)), 201

    @app.get("/")
    def page() -> Response:
        return send_from_directory(HERE / "static", "index.html")

    @app.post("/charge")
    def charge() -> tuple[Response, int]:
        amount_minor = request.form.get("amount_minor", 0, int)
        return answer(
            lambda client: client.create_app_charge(
                NewAppCharge(app=app_id, customer=customer, amount_minor=amount_minor, currency="USD")
            )
        )

    @app.post("/purchase")
    def purchase() -> tuple[Response, int]:
        amount_minor = request.form.get("amount_minor", 0, int)
        return answer(
            lambda client: client.create_purchase(
                NewPurchase(customer=customer, amount_minor=amount_minor, currency="USD", product_kind="book")
            )
        )

    return app
