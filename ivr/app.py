"""The web application: ``gunicorn 'ivr.app:create_app()'`` in production, ``ivr serve`` on one machine."""

from __future__ import annotations

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from ivr import log, tracing
from ivr import services as service_parts
from ivr.api import bank_notices, stripe_events, v1
from ivr.carrier import stream, webhooks
from ivr.console import pay, people
from ivr.console.operators import web as operators
from ivr.keys import Keyring
from ivr.ops import exposition
from ivr.payments.banks import connect
from ivr.settings import Settings
from ivr.settings import settings as process_settings

LONGEST_FORM_BYTES = 64 * 1024
LONGEST_MESSAGE_BYTES = 64 * 1024  # of a websocket; the carrier's are a few hundred


def create_app(settings: Settings | None = None, services: service_parts.Services | None = None) -> Flask:
    """The application of one worker process; ``services`` lets tests share what is slow to build."""
    log.configure()
    settings = settings or process_settings()
    services = services or service_parts.build(settings)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = LONGEST_FORM_BYTES
    app.config["SOCK_SERVER_OPTIONS"] = {"max_message_size": LONGEST_MESSAGE_BYTES, "ping_interval": 25}
    app.extensions["ivr"] = services
    if settings.trusted_proxies:
        n = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=n, x_proto=n, x_host=n)  # type: ignore[method-assign]

    stream.sock.init_app(app)
    app.register_blueprint(webhooks.blueprint)
    app.register_blueprint(stripe_events.blueprint)
    if services.confirmations and settings.bank_notice_secret:
        bank_notices.install(app, settings, services.confirmations)
    keyring = Keyring.load(settings)
    people.install(app, services, keyring)
    bank = connect(settings)
    pay.install(app, bank)
    operators.install(app, services, keyring)
    v1.install(app, services, keyring, bank)

    if tracing.configure():
        tracing.install(app)
    if settings.metrics_token is not None:
        exposition.install(app, services.database, settings.metrics_token.get_secret_value())

    @app.get("/health")
    def health() -> tuple[dict[str, str], int]:
        """For load balancers: the process answers, and reaches its stores."""
        with services.database.transaction() as session:
            session.connection().exec_driver_sql("SELECT 1")
        return {"status": "ok"}, 200

    return app
