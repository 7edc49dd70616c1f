from __future__ import annotations

import ast
import json
import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from payments_support import make_due
from pydantic import SecretStr
from sqlalchemy import func, select
from structlog.testing import capture_logs
from twilio.http.http_client import TwilioHttpClient

import ivr
from ivr import jobs
from ivr.customers.models import ContactKind, Notice
from ivr.customers.notices import notify
from ivr.customers.register import add_customer
from ivr.jobs import Job
from ivr.locales import LOCALES
from ivr.notifications.channels import NotSent, SmtpChannel, TwilioSmsChannel, connect
from ivr.notifications.send import MOST_ATTEMPTS, send
from ivr.notifications.texts import compose, templates
from ivr.payments import worker
from ivr.settings import Settings
from ivr.store.db import Database

MAIL, PHONE, OUR_NUMBER = "ann@example.com", "+14155550123", "+14155550100"
ACCOUNT, TOKEN, PASSWORD = "AC" + "0" * 32, "12345", "p@ss:w/rd"  # as in the settings of the tests
PAID = {
    "merchant": "City Water",
    "amount_minor": 4210,
    "currency": "USD",
    "last4": "1234",
    "receipt": "55512345",
}


class MailServer:
    """A real SMTP server: what it took, and the answers with which it refuses recipients."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.mails: list[EmailMessage] = []
        self.logins: list[tuple[str, str]] = []
        self.recipient_answers: list[str] = []

    async def handle_RCPT(
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if self.recipient_answers:
            return self.recipient_answers.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        assert envelope.rcpt_tos == [mail["To"]]
        self.mails.append(mail)
        return "250 OK"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.logins.append((data.login.decode(), data.password.decode()))
        return AuthResult(success=True)

    @contextmanager
    def running(self, **options: Any) -> Iterator[MailServer]:
        controller = Controller(self, hostname="127.0.0.1", port=self.port, **options)
        controller.start()
        try:
            yield self
        finally:
            controller.stop()


class TwilioServer:
    """A stand-in for Twilio's API over real HTTP: what it took, and the errors (status, code) it answers with."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        self.errors: list[tuple[int, int]] = []
        twilio = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                made = re.fullmatch(rf"/2010-04-01/Accounts/{ACCOUNT}/(Messages|Calls)\.json", self.path)
                assert made, self.path
                assert self.headers["Authorization"] == "Basic " + b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
                status = 201
                answer: dict[str, Any] = {"sid": "SM1", "status": "queued"}
                if twilio.errors:
                    status, code = twilio.errors.pop(0)
                    answer = {"code": code, "message": f"no way to {form['To'][0]}", "status": status}
                else:
                    twilio.messages.append({key: value for key, (value,) in form.items()})
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[TwilioServer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@pytest.fixture
def mail_server() -> Iterator[MailServer]:
    with MailServer().running() as server:
        yield server


@pytest.fixture
def twilio(monkeypatch: pytest.MonkeyPatch) -> Iterator[TwilioServer]:
    """Twilio's own client talks to the stand-in."""
    request = TwilioHttpClient.request

    def redirected(client: TwilioHttpClient, method: str, uri: str, *arguments: Any, **options: Any) -> Any:
        return request(client, method, uri.replace("https://api.twilio.com", server.url), *arguments, **options)

    monkeypatch.setattr(TwilioHttpClient, "request", redirected)
    with TwilioServer().running() as server:
        yield server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tell(
    database: Database, *, locale: str = "en", template: str = "payment.made", **contacts: list[str]
) -> None:
    """A customer with these contacts has paid."""
    with database.transaction() as session:
        now = datetime.now(UTC)
        customer = add_customer(session, phones=[], locale=locale, now=now, **contacts)  # type: ignore[arg-type]
        notify(session, customer.id, template, PAID, now)


def work(settings: Settings) -> str:
    """A worker runs what is due; what it logged."""
    with capture_logs() as lines:
        worker.run(settings, threading.Event(), once=True)
    return "\n".join(str(line) for line in lines)


def sent(database: Database) -> list[bool]:
    with database.transaction() as session:
        return [at is not None for at in session.scalars(select(Notice.sent_at).order_by(Notice.contact_id))]


def job(database: Database) -> Job:
    with database.transaction() as session:
        return session.scalars(select(Job)).one()


def with_sms(settings: Settings) -> Settings:
    return settings.model_copy(update={"sms_from": OUR_NUMBER})


def with_mail(settings: Settings, port: int, login: str = "") -> Settings:
    url = SecretStr(f"smtp://{login}localhost:{port}")
    return settings.model_copy(update={"smtp_url": url, "smtp_from": "Pay by voice <pay@example.com>"})


def test_a_notice_is_mailed_once_and_marked(database: Database, settings: Settings, mail_server: MailServer) -> None:
    tell(database, emails=[MAIL])
    assert sent(database) == [False]
    logged = work(with_mail(settings, mail_server.port))
    work(with_mail(settings, mail_server.port))
    (mail,) = mail_server.mails
    assert (mail["To"], mail["From"]) == (MAIL, "Pay by voice <pay@example.com>")
    assert (mail["Subject"], mail.get_content().strip()) == compose("payment.made", PAID, "en")
    assert mail["Message-ID"].endswith("@example.com>")
    assert sent(database) == [True]
    assert MAIL not in logged


def test_a_text_message_comes_from_the_services_number(
    database: Database, settings: Settings, twilio: TwilioServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    tell(database, locale="zh", sms=[PHONE])
    logged = work(with_sms(settings))
    work(with_sms(settings))
    assert twilio.messages == [{"To": PHONE, "From": OUR_NUMBER, "Body": compose("payment.made", PAID, "zh")[1]}]
    assert sent(database) == [True]
    for text in (logged, caplog.text):
        assert PHONE not in text
        assert "City Water" not in text
        assert ACCOUNT not in text


def test_a_worker_that_died_after_marking_is_followed_by_one_that_sends_nothing(
    database: Database, settings: Settings, mail_server: MailServer
) -> None:
    tell(database, emails=[MAIL])
    work(with_mail(settings, mail_server.port))
    with database.transaction() as session:
        session.scalars(select(Job)).one().done_at = None
    work(with_mail(settings, mail_server.port))
    assert job(database).done_at is not None
    assert len(mail_server.mails) == 1


def test_every_contact_is_told_and_one_that_fails_keeps_no_other_from_it(
    database: Database, settings: Settings, mail_server: MailServer, twilio: TwilioServer
) -> None:
    twilio.errors = [(503, 20503)]
    tell(database, sms=[PHONE], emails=[MAIL, "ann.work@example.com"])
    work(with_sms(with_mail(settings, mail_server.port)))
    assert sorted(sent(database)) == [False, True, True]
    assert len(mail_server.mails) == 2


def test_a_notice_that_was_rolled_back_leaves_no_job(database: Database) -> None:
    with database.transaction() as session:
        customer = add_customer(session, phones=[], emails=[MAIL], now=datetime.now(UTC))
        notify(session, customer.id, "enrolled", {}, datetime.now(UTC))
        session.rollback()
    with database.transaction() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0


def test_a_failing_channel_is_tried_again_after_growing_waits_and_in_the_end_no_more(
    database: Database, settings: Settings, twilio: TwilioServer
) -> None:
    tell(database, sms=[PHONE])
    twilio.errors = [(503, 20503)] * MOST_ATTEMPTS
    waits, logged = [], ""
    for _ in range(MOST_ATTEMPTS):
        before = datetime.now(UTC)
        logged = work(with_sms(settings))
        waits.append(job(database).run_at - before)
        make_due(database)
    assert all(later > 1.9 * earlier for earlier, later in zip(waits[:-2], waits[1:-1], strict=True))
    assert job(database).done_at is not None
    assert "notice given up" in logged
    assert "twilio 20503" in logged
    assert PHONE not in logged
    assert sent(database) == [False]


def test_a_mail_server_that_refuses_for_now_is_asked_again(
    database: Database, settings: Settings, mail_server: MailServer
) -> None:
    mail_server.recipient_answers = ["451 greylisted"]
    tell(database, emails=[MAIL])
    for expected in ([False], [True]):
        work(with_mail(settings, mail_server.port))
        assert sent(database) == expected
        make_due(database)


def test_an_address_that_is_refused_for_good_is_not_tried_again(
    database: Database, settings: Settings, mail_server: MailServer, twilio: TwilioServer
) -> None:
    mail_server.recipient_answers = ["550 no such user"]
    twilio.errors = [(400, 21610)]
    settings = with_sms(with_mail(settings, mail_server.port))
    tell(database, emails=[MAIL, "a,b@example.com"], sms=[PHONE])
    logged = work(settings)
    make_due(database)
    assert "notice" not in work(settings)
    assert (mail_server.mails, twilio.messages) == ([], [])
    assert all(why in logged for why in ("recipient refused 550", "twilio 21610", "no address"))
    assert not any(address in logged for address in (MAIL, PHONE, "a,b@example.com"))


def test_without_a_channel_the_notice_stays_unsent_and_the_log_says_so_once(
    database: Database, settings: Settings
) -> None:
    tell(database, emails=[MAIL])
    logged = work(settings)
    assert logged.count("its channel is not configured") == 1
    assert MAIL not in logged
    assert "notice" not in work(settings)
    assert sent(database) == [False]


def test_nobody_who_lost_the_job_marks_the_notice_and_the_next_worker_sends_it_again(database: Database) -> None:
    class Slow:
        """Takes the message, and meanwhile somebody else takes the job."""

        def __init__(self) -> None:
            self.addresses: list[str] = []

        def send(self, address: str, subject: str, text: str) -> None:
            self.addresses.append(address)
            if len(self.addresses) == 1:
                assert (second := jobs.take(database, "second", ["notice.send"], timedelta(minutes=1)))
                send(second, {ContactKind.EMAIL: self})

    tell(database, emails=[MAIL])
    held = jobs.take(database, "first", ["notice.send"], timedelta(0))
    assert held
    slow = Slow()
    with pytest.raises(jobs.LeaseLost):
        send(held, {ContactKind.EMAIL: slow})
    assert slow.addresses == [MAIL, MAIL]
    assert sent(database) == [True]


def test_no_debit_waits_for_a_mail_server(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sending, debited, stop = threading.Event(), threading.Event(), threading.Event()
    waited_for_debit = []

    class Hanging:
        def send(self, address: str, subject: str, text: str) -> None:
            sending.set()
            waited_for_debit.append(debited.wait(20))
            stop.set()

    monkeypatch.setitem(worker.HANDLERS, "debit", lambda *_: debited.set())
    tell(database, emails=[MAIL])
    thread = threading.Thread(
        target=worker.run, args=(settings, stop), kwargs={"channels": {ContactKind.EMAIL: Hanging()}}
    )
    thread.start()
    assert sending.wait(20)
    with database.transaction() as session:
        jobs.put(session, "debit", {}, "debit", datetime.now(UTC))
    thread.join()
    assert waited_for_debit == [True]


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A certificate of ``localhost`` that this process trusts."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    path = tmp_path / "localhost.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + pem
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    return context


LOGIN = "ann%40home:p%40ss%3Aw%2Frd@"


def test_the_login_in_the_url_is_used_after_starttls(certificate: ssl.SSLContext) -> None:
    server = MailServer()
    options = {"tls_context": certificate, "require_starttls": True, "auth_required": True}
    with server.running(authenticator=server.authenticate, **options):
        SmtpChannel(f"smtp://{LOGIN}localhost:{server.port}", "pay@example.com").send(MAIL, "主题", "正文")
    assert server.logins == [("ann@home", PASSWORD)]
    (mail,) = server.mails
    assert (mail["Subject"], mail.get_content().strip()) == ("主题", "正文")


def test_smtps_is_encrypted_from_the_start(certificate: ssl.SSLContext) -> None:
    server = MailServer()
    with server.running(ssl_context=certificate):
        SmtpChannel(f"smtps://localhost:{server.port}", "pay@example.com").send(MAIL, "s", "t")
    assert len(server.mails) == 1


def test_no_password_goes_to_a_server_without_encryption_or_with_a_strangers_certificate(
    certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    for options in ({}, {"tls_context": certificate}):
        server = MailServer()
        with (
            server.running(authenticator=server.authenticate, auth_require_tls=False, **options),
            pytest.raises(NotSent) as failure,
        ):
            SmtpChannel(f"smtp://{LOGIN}localhost:{server.port}", "pay@example.com").send(MAIL, "s", "t")
        assert (server.logins, server.mails) == ([], [])
        assert str(failure.value) in ("SMTPNotSupportedError", "SSLCertVerificationError")


def test_a_server_that_fails_at_the_farewell_has_still_taken_the_mail(
    mail_server: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle_QUIT(*_: object) -> str:
        return "421 too busy to part"

    monkeypatch.setattr(MailServer, "handle_QUIT", handle_QUIT, raising=False)
    SmtpChannel(f"smtp://localhost:{mail_server.port}", "pay@example.com").send(MAIL, "s", "t")
    assert len(mail_server.mails) == 1


def test_a_server_that_is_away_is_no_error_that_tells_an_address(twilio: TwilioServer) -> None:
    with pytest.raises(NotSent, match="^ConnectionRefusedError$"):
        SmtpChannel(f"smtp://localhost:{_free_port()}", "pay@example.com").send(MAIL, "s", "t")
    twilio.url = f"http://127.0.0.1:{_free_port()}"
    with pytest.raises(NotSent, match="^ConnectionError$"):
        TwilioSmsChannel(ACCOUNT, TOKEN, OUR_NUMBER).send(PHONE, "s", "t")


@pytest.mark.parametrize("url", ["smtp://ann:s3/cret@host", "http://host", "smtp://", "host:587"])
def test_a_bad_url_is_refused_at_the_start_without_being_told(url: str) -> None:
    with pytest.raises(ValueError, match="is not of the form") as failure:
        SmtpChannel(url, "pay@example.com")
    assert "s3" not in str(failure.value)


def test_channels_are_chosen_by_the_settings(settings: Settings) -> None:
    assert connect(settings) == {}
    assert set(connect(with_mail(settings, 25))) == {ContactKind.EMAIL}
    assert set(connect(settings.model_copy(update={"sms_from": OUR_NUMBER}))) == {ContactKind.SMS}
    with pytest.raises(ValueError, match="IVR_SMTP_FROM"):
        connect(with_mail(settings, 25).model_copy(update={"smtp_from": None}))
    with pytest.raises(ValueError, match="IVR_ACCOUNT_SID"):
        connect(settings.model_copy(update={"sms_from": OUR_NUMBER, "account_sid": ""}))


def templates_in_the_code() -> set[str]:
    """Every constant that reaches ``notify``'s template, also through functions that only pass it on, and tables."""
    trees = [ast.parse(path.read_text()) for path in Path(ivr.__file__).parent.rglob("*.py")]
    functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    tables = {
        target.id: [value.value for value in node.value.values if isinstance(value, ast.Constant)]
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    passed_on, found = {"notify": 2, "notify_at": 2}, set()
    while True:
        known = len(passed_on)
        for function in functions:
            parameters = [argument.arg for argument in function.args.args]
            for call in ast.walk(function):
                name = getattr(call.func, "id", getattr(call.func, "attr", "")) if isinstance(call, ast.Call) else ""
                if name not in passed_on or len(call.args) <= passed_on[name]:  # type: ignore[attr-defined]
                    continue
                assert isinstance(call, ast.Call)
                template = call.args[passed_on[name]]
                if isinstance(template, ast.Subscript):
                    found |= set(tables.get(template.value.id, ()))  # type: ignore[attr-defined]
                elif isinstance(template, ast.Name) and template.id in parameters:
                    passed_on[function.name] = parameters.index(template.id)
                parts = [template.body, template.orelse] if isinstance(template, ast.IfExp) else [template]
                found |= {part.value for part in parts if isinstance(part, ast.Constant)}
        if len(passed_on) == known:
            return found


def test_every_template_that_the_code_names_exists_in_every_language() -> None:
    named = templates_in_the_code()
    assert {"payment.made", "payment.refused", "enrolled", "pin_set"} <= named

    def places(words: dict[str, str]) -> list[str]:
        return sorted(re.findall(r"\{(\w+)\}", words["text"]))

    for locale in LOCALES:
        assert set(templates(locale)) == named
        for template in named:
            assert places(templates(locale)[template]) == places(templates("en")[template])
            more = {"link": "https://bank.example.com/1", "code": "123456", "ward": "Lea", "ends": "soon", "lines": []}
            subject, text = compose(template, {**PAID, **more, "app": "Pump"}, locale)
            assert subject
            assert "{" not in text


def test_a_text_says_what_happened_and_what_to_do() -> None:
    assert compose("payment.made", PAID, "en")[1] == (
        "You paid USD 42.10 to City Water with the card ending 1234. Receipt 55512345. If this was not "
        "you, call us on the number you know, press 0 for an agent, and ask your bank to block the card."
    )
    assert "JPY 4,210" in compose("payment.refused", {**PAID, "currency": "JPY"}, "zh")[1]
